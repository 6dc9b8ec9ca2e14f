"""`where` filters over a document's metadata.

    {"kind": "ticket", "priority": {"$gte": 3}}                       every field must match
    {"tags": {"$contains": "urgent"}}                                 item of a list, or part of a string
    {"$or": [{"author.name": "Ada"}, {"author": {"$exists": False}}]}  dotted paths reach into objects
    {"$not": {"status": {"$in": ["closed", "void"]}}}

Comparing values of different types is False, never an error; `$ne` and `$nin` are the negations of `$eq` and `$in`, so
they hold where the field is missing. Numbers compare with numbers only (True is not 1), strings by code point.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ttt_memory.errors import InvalidFilterError

Predicate = Callable[[Mapping[str, Any]], bool]
MAX_DEPTH = 32

_MISSING = object()
_OPERATORS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$contains", "$exists", "$not")


def compile_filter(where: Mapping[str, Any] | None) -> Predicate:
    """Turn a filter into a function of a document's metadata. None and {} let everything through.

    Raises:
        InvalidFilterError: not a mapping, an unknown operator, or an operand of the wrong type.
    """
    return _clause({} if where is None else where, 0)


def _clause(where: Any, depth: int) -> Predicate:
    if not isinstance(where, Mapping):
        raise _malformed(where, "a filter is an object of fields and values")
    if depth > MAX_DEPTH:
        raise _malformed("...", f"filters nest at most {MAX_DEPTH} deep")
    parts = [_entry(key, operand, depth) for key, operand in where.items()]
    return lambda metadata: all(part(metadata) for part in parts)


def _entry(key: Any, operand: Any, depth: int) -> Predicate:
    if not isinstance(key, str):
        raise _malformed(key, "field names are strings")
    if key in ("$and", "$or"):
        if not isinstance(operand, Sequence) or isinstance(operand, str | bytes) or not operand:
            raise _malformed({key: operand}, f"{key} takes a list of at least one filter")
        parts = [_clause(part, depth + 1) for part in operand]
        combine = all if key == "$and" else any
        return lambda metadata: combine(part(metadata) for part in parts)
    if key == "$not":
        inner = _clause(operand, depth + 1)
        return lambda metadata: not inner(metadata)
    if key.startswith("$"):
        raise _malformed(key, "at this place only $and, $or and $not are known")
    test = _condition(operand, depth + 1)
    return lambda metadata: test(_reach(metadata, key))


def _condition(operand: Any, depth: int) -> Callable[[Any], bool]:
    """Compile what a field's value is tested against: a plain value, or an object of operators."""
    if depth > MAX_DEPTH:
        raise _malformed("...", f"filters nest at most {MAX_DEPTH} deep")
    if isinstance(operand, Mapping) and any(isinstance(key, str) and key.startswith("$") for key in operand):
        tests = [_operator(name, value, depth) for name, value in operand.items()]
        return lambda value: all(test(value) for test in tests)
    return _operator("$eq", operand, depth)


def _operator(name: Any, operand: Any, depth: int) -> Callable[[Any], bool]:
    if name not in _OPERATORS:
        raise _malformed(name, f"the operators are {', '.join(_OPERATORS)}")
    if name == "$not":
        inner = _condition(operand, depth + 1)
        return lambda value: not inner(value)
    if name == "$exists":
        if not isinstance(operand, bool):
            raise _malformed({name: operand}, "$exists takes true or false")
        return lambda value: (value is not _MISSING) is operand
    if name in ("$in", "$nin"):
        if not isinstance(operand, Sequence | frozenset | set) or isinstance(operand, str | bytes):
            raise _malformed({name: operand}, f"{name} takes a list of values")
        options, inside = [_json(option) for option in operand], name == "$in"
        return lambda value: any(_equal(value, option) for option in options) is inside
    if name in ("$gt", "$gte", "$lt", "$lte"):
        if isinstance(operand, bool) or not isinstance(operand, int | float | str):
            raise _malformed({name: operand}, f"{name} takes a number or a string")
        return lambda value: _ordered(name, value, operand)
    wanted = _json(operand)
    if name == "$contains":
        return lambda value: _contains(value, wanted)
    equal = name == "$eq"
    return lambda value: _equal(value, wanted) is equal


def _reach(metadata: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path; a key that holds the dots itself comes first."""
    if path in metadata:
        return metadata[path]
    value: Any = metadata
    for step in path.split("."):
        if not isinstance(value, Mapping) or step not in value:
            return _MISSING
        value = value[step]
    return value


def _equal(value: Any, wanted: Any) -> bool:
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    if isinstance(value, Mapping) and isinstance(wanted, Mapping):
        return value.keys() == wanted.keys() and all(_equal(value[key], wanted[key]) for key in wanted)
    if isinstance(value, list | tuple) and isinstance(wanted, list | tuple):
        return len(value) == len(wanted) and all(map(_equal, value, wanted))
    return value is not _MISSING and bool(value == wanted)


def _ordered(name: str, value: Any, operand: float | str) -> bool:
    kinds = (str,) if isinstance(operand, str) else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        return False
    below, above = value < operand, value > operand  # type: ignore[operator]
    return {"$gt": above, "$lt": below, "$gte": above or value == operand, "$lte": below or value == operand}[name]


def _contains(value: Any, wanted: Any) -> bool:
    if isinstance(value, str):
        return isinstance(wanted, str) and wanted in value
    return isinstance(value, list | tuple) and any(_equal(item, wanted) for item in value)


def _json(operand: Any, depth: int = 0) -> Any:
    """Check that an operand is a value that metadata can hold."""
    if depth > MAX_DEPTH:
        raise _malformed("...", f"values nest at most {MAX_DEPTH} deep")
    if operand is None or isinstance(operand, str | int | float):
        return operand
    if isinstance(operand, list | tuple):
        return [_json(item, depth + 1) for item in operand]
    if isinstance(operand, Mapping) and all(isinstance(key, str) and not key.startswith("$") for key in operand):
        return {key: _json(item, depth + 1) for key, item in operand.items()}
    raise _malformed(operand, "values are strings, numbers, booleans, null, lists and objects of these")


def _malformed(part: Any, why: str) -> InvalidFilterError:
    return InvalidFilterError(
        f"The filter cannot be used: {reprlib.repr(part)}.",
        why=why,
        fix='Write it like {"kind": "ticket", "priority": {"$gte": 3}}.',
        part=part,
    )

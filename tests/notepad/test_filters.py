"""Filters over metadata: what they mean, that mismatched types are False, that malformed ones are typed errors."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttt_memory.errors import InvalidFilterError
from ttt_memory.notepad.filters import compile_filter

TICKET = {
    "kind": "ticket",
    "priority": 3,
    "ratio": 0.5,
    "open": True,
    "tags": ["urgent", 7],
    "author": {"name": "Ada", "team": None},
    "a.b": "dotted",
}


@pytest.mark.parametrize(
    "where",
    [
        None,
        {},
        {"kind": "ticket"},
        {"kind": {"$eq": "ticket"}, "priority": {"$gte": 3, "$lt": 4}},
        {"kind": {"$gt": "task"}},
        {"priority": 3.0},
        {"priority": {"$in": [1, 3]}},
        {"priority": {"$nin": [1, 2]}},
        {"missing": {"$nin": [1]}},
        {"missing": {"$ne": 1}},
        {"missing": {"$exists": False}},
        {"tags": {"$contains": "urgent"}},
        {"tags": ["urgent", 7]},
        {"kind": {"$contains": "ick"}},
        {"author.name": "Ada"},
        {"author": {"name": "Ada", "team": None}},
        {"author.team": None},
        {"author.team": {"$exists": True}},
        {"a.b": "dotted"},
        {"open": True},
        {"$or": [{"kind": "x"}, {"priority": 3}]},
        {"$and": [{"kind": "ticket"}, {"$not": {"priority": {"$lt": 3}}}]},
        {"priority": {"$not": {"$gt": 3}}},
    ],
)
def test_holds(where: dict[str, Any] | None) -> None:
    assert compile_filter(where)(TICKET) is True


@pytest.mark.parametrize(
    "where",
    [
        {"kind": "Ticket"},
        {"missing": None},
        {"priority": "3"},
        {"priority": True},
        {"open": 1},
        {"open": {"$gt": 0}},
        {"kind": {"$gt": 3}},
        {"priority": {"$gt": "a"}},
        {"tags": {"$gte": 1}},
        {"missing": {"$lt": 1}},
        {"tags": "urgent"},
        {"tags": {"$contains": "urg"}},
        {"priority": {"$contains": 3}},
        {"author.name.first": "Ada"},
        {"ratio": {"$in": []}},
        {"ratio": {"$gt": float("nan")}},
        {"$not": {}},
    ],
)
def test_does_not_hold(where: dict[str, Any]) -> None:
    assert compile_filter(where)(TICKET) is False


def nested(depth: int) -> dict[str, Any]:
    where: dict[str, Any] = {"a": 1}
    for _ in range(depth):
        where = {"$not": where}
    return where


@pytest.mark.parametrize(
    "where",
    [
        "kind",
        ["kind"],
        {"$nor": []},
        {"$or": []},
        {"$or": {"a": 1}},
        {"$and": "ab"},
        {"$and": [1]},
        {"a": {"$near": 1}},
        {"a": {"$gt": 1, "b": 2}},
        {"a": {"$gt": None}},
        {"a": {"$gt": [1]}},
        {"a": {"$in": "abc"}},
        {"a": {"$in": [object()]}},
        {"a": {"$exists": "yes"}},
        {"a": object()},
        {"a": b"bytes"},
        {3: 1},
        nested(100_000),
        {"a": {"$not": nested(100_000)}},
    ],
    ids=lambda where: repr(where)[:30] if "$not" not in str(type(where)) and not isinstance(where, dict) else None,
)
def test_malformed_filters_are_typed_errors(where: Any) -> None:
    with pytest.raises(InvalidFilterError):
        compile_filter(where)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "a.b"]), inner, max_size=3),
    max_leaves=6,
)
operators = st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$contains", "$exists", "$not"])


@given(st.dictionaries(st.sampled_from(["a", "b", "a.b"]), json), operators, json)
def test_a_filter_is_refused_or_gives_a_bool(metadata: dict[str, Any], operator: str, operand: Any) -> None:
    try:
        holds = compile_filter({"a.b": {operator: operand}})
    except InvalidFilterError:
        return
    assert isinstance(holds(metadata), bool)
    assert compile_filter({"$not": {"a.b": {operator: operand}}})(metadata) is not holds(metadata)

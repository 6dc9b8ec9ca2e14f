"""Values given on the command line: `key=value` pairs and filters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import typer


def pairs(given: Sequence[str] | None) -> dict[str, Any]:
    """`key=value` pairs; a value that reads as JSON is taken so (`priority=3` is a number), any other is text."""
    found: dict[str, Any] = {}
    for pair in given or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{pair!r} is not of the form key=value.")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def filter_of(given: Sequence[str] | None) -> dict[str, Any] | None:
    """A `where` filter from `key=value` pairs and JSON objects, all of which must hold; None where none is given."""
    if not given:
        return None
    found: dict[str, Any] = {}
    for part in given:
        if not part.lstrip().startswith("{"):
            found |= pairs([part])
            continue
        try:
            found |= json.loads(part)
        except ValueError as error:
            raise typer.BadParameter(f"{part!r} is not a JSON object: {error}.") from error
    return found

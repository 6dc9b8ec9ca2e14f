"""Answerers and embedders named on the command line, those behind endpoints among them.

Endpoints are adapters, and adapters stand above this package: the distribution names them as entry points, and they are
asked for by name.
"""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, cast

from ttt_memory.errors import InvalidInputError

if TYPE_CHECKING:
    from ttt_memory.answerers.protocol import Answerer
    from ttt_memory.notepad.embedders import Embedder
    from ttt_memory.types import AnswererName

KEY, EMBEDDER, BASE_URL = "TTT_MEMORY_API_KEY", "TTT_MEMORY_EMBEDDER", "TTT_MEMORY_BASE_URL"


def answerer_of(spec: str, base_url: str | None) -> AnswererName | Answerer:
    """`extract`, `generate` (`ask` refuses other words), or the answerer that `kind:model` names."""
    if ":" not in spec:
        return cast("AnswererName", spec)
    return cast("Answerer", _named("answerers", spec, base_url))


def embedder_of(spec: str | None, base_url: str | None) -> str | Embedder | None:
    """An embedder's own name, or the embedder that `kind:model` names."""
    if spec is None or ":" not in spec:
        return spec
    return cast("Embedder", _named("embedders", spec, base_url))


def embedder_from_environment() -> str | Embedder | None:
    """The embedder that TTT_MEMORY_EMBEDDER names, with TTT_MEMORY_BASE_URL, for memories that need one given."""
    return embedder_of(os.environ.get(EMBEDDER) or None, None)


def _named(group: str, spec: str, base_url: str | None) -> Any:
    kind, _, model = spec.partition(":")
    found = entry_points(group=f"ttt_memory.{group}", name=kind)
    if not found:
        known = sorted(point.name for point in entry_points(group=f"ttt_memory.{group}"))
        raise InvalidInputError(
            f"There is no {group.removesuffix('s')} {spec!r}.",
            fix=f"Name one as KIND:MODEL; kinds: {', '.join(known) or 'none are installed'}.",
        )
    options: dict[str, Any] = {}
    if base_url := base_url or os.environ.get(BASE_URL):
        options["base_url"] = base_url
    elif kind == "openai":
        raise InvalidInputError(f"{spec!r} needs the address of its endpoint.", fix="Give --base-url URL.")
    if kind != "sentence-transformers":
        options["api_key"] = os.environ.get(KEY) or None
    return next(iter(found)).load()(model=model, **options)

"""`ttt-memory mcp`: a server of the Model Context Protocol over this memory.

The server is an adapter, and adapters stand above this package: nothing here may import them. So the distribution
names it as an entry point (pyproject.toml), and this command asks for it by that name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Annotated, Any

import typer

from ttt_memory.commands.endpoints import embedder_from_environment
from ttt_memory.commands.place import Place, verb
from ttt_memory.errors import MissingExtraError

GROUP = "ttt_memory.servers"
TOKEN = "TTT_MEMORY_MCP_TOKEN"

EXAMPLES = """
ttt-memory mcp --tenant acme
ttt-memory mcp --transport http --port 8765
ttt-memory mcp --transport http --host 0.0.0.0 --allow-host memory.example.org
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    verb(app, "mcp", examples=EXAMPLES)(_mcp)


def _mcp(
    place: Place,
    transport: Annotated[str, typer.Option("--transport", help="stdio, or http (streamable HTTP at /mcp).")] = "stdio",
    host: Annotated[str, typer.Option("--host", help="Where to listen; beyond this machine only with a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8765,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="A name, beside localhost, by which clients call it."),
    ] = None,
) -> None:
    """Serve this memory to agents over the Model Context Protocol, until the client leaves or Ctrl-C.

    The tenant is the one named here; no client can reach another. Over http, TTT_MEMORY_MCP_TOKEN in the environment
    is the bearer token that every request must carry.
    """
    if place.as_json:
        raise typer.BadParameter("mcp speaks a protocol of its own; leave out --json.")
    if transport not in ("stdio", "http"):
        raise typer.BadParameter(f"{transport!r} is not a transport: stdio or http.")
    _server("mcp")(
        place.url,
        tenant=place.name,
        model=place.model,
        embedder=embedder_from_environment(),
        transport=transport,
        host=host,
        port=port,
        token=os.environ.get(TOKEN) or None,
        allowed_hosts=tuple(allow_host or ()),
    )


def _server(name: str) -> Callable[..., Any]:
    found = entry_points(group=GROUP, name=name)
    if not found:
        raise MissingExtraError(f"ttt-memory[{name}]", extra=name, needed_for=f"`ttt-memory {name}`")
    serve: Callable[..., Any] = next(iter(found)).load()
    return serve

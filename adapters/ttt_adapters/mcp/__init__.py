"""An MCP server over one tenant's memory (`pip install 'ttt-memory[mcp]'`): what `ttt-memory mcp` starts.

`serve` runs it; `ttt_adapters.mcp.server.build_server` gives the SDK's server object, to be mounted elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ttt_memory.errors import MissingExtraError

if TYPE_CHECKING:
    from ttt_memory import Embedder

Transport = Literal["stdio", "http"]


def serve(
    url: str | None = None,
    *,
    tenant: str = "default",
    model: str | Path | None = None,
    embedder: str | Embedder | None = None,
    transport: Transport = "stdio",
    host: str = "127.0.0.1",
    port: int = 8765,
    token: str | None = None,
    allowed_hosts: Sequence[str] = (),
) -> None:
    """Open a memory and serve it until the client leaves (stdio) or the process is asked to end (http).

    What an interruption left unread is taken up by the first ingest, so that the server answers at once.

    Args:
        url: SQLAlchemy URL of the store; None is a file in the user's data directory.
        tenant: whose memory; created where it is new. No tool can name another one.
        model: for a new memory; see `CompressedMemory.open`.
        embedder: for a new memory, or one that needs it given; see there.
        transport: `"stdio"`, or `"http"` for streamable HTTP at the path /mcp.
        host: where to listen; anything but loopback needs a token.
        port: 0 takes a free one; the address is printed to stderr.
        token: where given, every HTTP request must carry `Authorization: Bearer TOKEN`.
        allowed_hosts: names, beside localhost, under which clients reach the server; any other is refused.

    Raises:
        MissingExtraError: the MCP SDK is not installed.
        InvalidInputError: the address cannot be used, or is open to others and there is no token.
        ModelNotFoundError, ModelMismatchError, StoreError: see `CompressedMemory.open`.
    """
    try:
        import mcp.server.mcpserver  # noqa: F401 - before all else, so that only its absence is taken for it
    except ModuleNotFoundError as error:
        raise MissingExtraError("mcp", extra="mcp", needed_for="The MCP server") from error
    import anyio

    from ttt_adapters.mcp.serving import over_http, over_stdio
    from ttt_memory import AsyncCompressedMemory

    opening = partial(AsyncCompressedMemory.open, url, tenant=tenant, model=model, embedder=embedder, replay=False)
    if transport == "stdio":
        anyio.run(over_stdio, opening)
    else:
        anyio.run(over_http, opening, host, port, token, allowed_hosts)

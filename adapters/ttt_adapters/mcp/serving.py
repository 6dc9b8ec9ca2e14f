"""A memory, opened, behind one of the two transports, until its time is over."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import anyio
import uvicorn

from ttt_adapters.mcp.http import BearerToken, listen, security
from ttt_adapters.mcp.server import build_server
from ttt_memory import AsyncCompressedMemory

if TYPE_CHECKING:
    from starlette.types import ASGIApp

Opening = Callable[[], Awaitable[AsyncCompressedMemory]]
PATH = "/mcp"
_GRACE_SECONDS = 5


async def over_stdio(opening: Opening) -> None:
    """Serve the client on stdin and stdout until it closes them, or this process is told to end."""
    end = _stdin_that_can_end()
    async with _opened(opening) as memory, anyio.create_task_group() as tasks:
        tasks.start_soon(_on_signals, end)
        await build_server(memory).run_stdio_async()
        tasks.cancel_scope.cancel()


async def over_http(opening: Opening, host: str, port: int, token: str | None, allowed_hosts: Sequence[str]) -> None:
    """Serve streamable HTTP until this process is told to end; see `ttt_adapters.mcp.serve`."""
    with listen(host, port, token=token) as socket:
        async with _opened(opening) as memory, anyio.create_task_group() as tasks:
            app: ASGIApp = build_server(memory).streamable_http_app(
                streamable_http_path=PATH, host=host, transport_security=security(allowed_hosts)
            )
            server = _Server(
                uvicorn.Config(
                    BearerToken(app, token) if token else app,
                    log_level="warning",
                    timeout_graceful_shutdown=_GRACE_SECONDS,
                )
            )
            tasks.start_soon(_on_signals, server.end)
            shown = f"[{host}]" if ":" in host else host
            address = f"http://{shown}:{socket.getsockname()[1]}{PATH}"
            sys.stderr.write(f"Serving the memory of {memory.tenant!r} at {address} until Ctrl-C\n")
            sys.stderr.flush()
            await server.serve(sockets=[socket])
            tasks.cancel_scope.cancel()


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn raises them anew after its shutdown, before the memory could be closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def end(self) -> None:
        """Answer what was asked, for a few seconds, and stop."""
        self.should_exit = True


@contextlib.asynccontextmanager
async def _opened(opening: Opening) -> AsyncIterator[AsyncCompressedMemory]:
    async with await opening() as memory:
        await memory.stats()  # loads the model: that it is missing is to be said here, not to the first client
        yield memory


async def _on_signals(end: Callable[[], None]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            end()


def _stdin_that_can_end() -> Callable[[], None]:
    """Put a pipe between the client and descriptor 0; returns what ends it as if the client had left.

    The SDK reads stdin in a thread that no cancellation reaches: without this, Ctrl-C would wait for the client.
    """
    client = os.dup(0)
    reader, writer = os.pipe()
    os.dup2(reader, 0)
    os.close(reader)

    def end() -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, writer)  # the pipe's last writer is gone; what the thread still writes is lost
        os.close(nowhere)

    def copy() -> None:
        with contextlib.suppress(OSError), open(writer, "wb", buffering=0, closefd=False) as out:
            while data := os.read(client, 1 << 16):
                rest = memoryview(data)
                while rest:
                    rest = rest[out.write(rest) or 0 :]
        end()

    threading.Thread(target=copy, name="ttt-memory-mcp-stdin", daemon=True).start()
    return end

"""Who may talk to the server over HTTP: names it answers to, a bearer token, and the socket it listens on."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from ttt_memory.errors import InvalidInputError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach a server that listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def security(allowed_hosts: Sequence[str]) -> TransportSecuritySettings:
    """DNS-rebinding protection, always on: loopback names and the given ones, on any port; browsers only from there."""
    names = dict.fromkeys((*_LOOPBACK, *allowed_hosts))
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[host for name in names for host in (name, f"{name}:*")],
        allowed_origins=[
            f"{scheme}://{host}" for scheme in ("http", "https") for name in names for host in (name, f"{name}:*")
        ],
    )


def listen(host: str, port: int, *, token: str | None) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        InvalidInputError: the address cannot be used; or others could reach it, and there is no token.
    """
    if not token and not is_loopback(host):
        raise InvalidInputError(
            f"An MCP server on {host} needs a token.",
            why="whoever reaches it could read and erase the memory",
            fix="Set TTT_MEMORY_MCP_TOKEN to a long random text, or listen on 127.0.0.1.",
            host=host,
        )
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise InvalidInputError(
            f"Cannot listen on {host}, port {port}.",
            why=str(error),
            fix="Choose another --port (0 takes a free one) or --host.",
            host=host,
            port=port,
        ) from error


class BearerToken:
    """ASGI middleware: requests without `Authorization: Bearer TOKEN` end with 401 before anything reads them."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on."""
        if scope["type"] == "http" and not self._known(Headers(scope=scope).get("authorization", "")):
            refusal = JSONResponse(
                {"error": "invalid_token", "error_description": "Send the server's token: Authorization: Bearer TOKEN"},
                status_code=401,
                headers={"WWW-Authenticate": "Bearer"},
            )
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _known(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), self._token)

"""A real HTTP server that speaks the wire formats of chat and embeddings, and fails in the ways that real ones do."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Notes each request, and replies with the next of the server's replies (the last one again and again)."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.body = json.loads(body)
        self.server.requests.append((self.path, dict(self.headers), self.body))
        replies = self.server.replies
        (replies.pop(0) if len(replies) > 1 else replies[0])(self)

    def send(self, status: int, body: str, kind: str = "application/json", **headers: str) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def stream(self, *events: Any, end: bool = True) -> None:
        """Server-sent events in chunks; without `end` the connection breaks off in the middle."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in events:
            line = event if isinstance(event, str) else "data: " + json.dumps(event)
            self._chunk(line.encode() + b"\n\n")
        if end:
            self._chunk(b"")
        self.close_connection = True

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Where requests go; `requests` has (path, headers, body) of each."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.replies: list[Reply] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def serving(*replies: Reply) -> Iterator[Server]:
    server = Server()
    server.replies = list(replies)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def status(code: int, message: str = "no", **headers: str) -> Reply:
    return lambda handler: handler.send(code, json.dumps({"error": {"message": message}}), **headers)


def text(body: str, kind: str = "application/json") -> Reply:
    return lambda handler: handler.send(200, body, kind)


def openai_stream(*pieces: str, finish: str | None = "stop", done: bool = True, end: bool = True) -> Reply:
    def reply(handler: Handler) -> None:
        events: list[Any] = [{"choices": [{"delta": {"role": "assistant"}}]}, ": keep-alive"]
        events += [{"choices": [{"delta": {"content": piece}, "finish_reason": None}]} for piece in pieces]
        if finish:
            events.append({"choices": [{"delta": {}, "finish_reason": finish}]})
            events.append({"choices": [], "usage": {"total_tokens": 3}})
        handler.stream(*events, *(["data: [DONE]"] if done else []), end=end)

    return reply


def openai_whole(content: str) -> Reply:
    message = {"role": "assistant", "content": content}
    return text(json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}))


def anthropic_stream(*pieces: str, stop: bool = True, error: dict[str, Any] | None = None) -> Reply:
    def named(event: dict[str, Any]) -> str:
        return f"event: {event['type']}\ndata: {json.dumps(event)}"

    def reply(handler: Handler) -> None:
        events = [named({"type": "message_start", "message": {"content": []}}), named({"type": "ping"})]
        events += [
            named({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}})
            for piece in pieces
        ]
        if error:
            events.append(named({"type": "error", "error": error}))
        if stop:
            events.append(named({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}))
            events.append(named({"type": "message_stop"}))
        handler.stream(*events)

    return reply


def embeddings(vector: Callable[[str], list[float]], *, backwards: bool = False) -> Reply:
    def reply(handler: Handler) -> None:
        data = [{"index": place, "embedding": vector(one)} for place, one in enumerate(handler.body["input"])]
        handler.send(200, json.dumps({"data": data[::-1] if backwards else data}))

    return reply

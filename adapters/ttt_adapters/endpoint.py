"""One HTTP endpoint that speaks JSON: retries, event streams, typed errors, and a key that is never shown."""

from __future__ import annotations

import email.utils
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ttt_memory.errors import (
    EndpointAuthError,
    EndpointError,
    EndpointReplyError,
    EndpointUnavailableError,
    InvalidInputError,
    MissingExtraError,
)

if TYPE_CHECKING:
    import httpx

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
"""Status codes that may be gone a moment later."""
FIRST_PAUSE = 0.5
"""Seconds before the second attempt; doubled with each further one."""
MAX_PAUSE = 60.0
"""Seconds: an endpoint that wants to be left alone for longer is given up."""
_SHOWN = 300
_MAX_EVENT = 8 << 20


class Endpoint:
    """Where requests go, and with which key. Safe to use from several threads.

    Args:
        base_url: `https://host/path`, without credentials.
        secrets: headers that carry the key.
        timeout: seconds without a byte until an attempt is given up.
        retries: attempts after the first one, for failures that may pass: busy, failing or unreachable endpoints.

    Raises:
        InvalidInputError: a url or key that cannot be used.
        MissingExtraError: httpx is not installed.
    """

    def __init__(
        self, base_url: str, *, secrets: Mapping[str, str], headers: Mapping[str, str], timeout: float, retries: int
    ) -> None:
        self.base_url = _checked(base_url)
        self._secrets = [_printable(secret) for secret in secrets.values()]
        self._retries = retries
        if timeout <= 0 or retries < 0:
            raise InvalidInputError("timeout must be positive, and retries at least 0.")
        self._client = _httpx().Client(
            headers={**headers, **secrets}, timeout=timeout, follow_redirects=False, trust_env=True
        )

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url!r})"

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that the endpoint replies to a JSON body. Raises EndpointError."""
        response = self._attempts(path, body)
        try:
            return self._json(self._read(response))
        finally:
            response.close()

    def events(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any] | None]:
        """The events of a streamed reply, as they come; None is the `[DONE]` that ends some of them.

        An endpoint that does not stream gives its whole reply as one event. Raises EndpointError.
        """
        response = self._attempts(path, body)
        try:
            if "event-stream" in response.headers.get("content-type", ""):
                yield from self._events(response)
            else:
                yield self._object(self._read(response))
        finally:
            response.close()

    def _attempts(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        """A successful response whose body is not read yet; again, while that may help."""
        for attempt in range(1, self._retries + 2):
            last = attempt > self._retries
            try:
                response = self._send(path, body)
            except EndpointUnavailableError as error:
                if last:
                    error.context["attempts"] = attempt
                    raise
                time.sleep(_pause(attempt))
                continue
            if response.status_code < 300:
                return response
            wished = _retry_after(response.headers.get("retry-after"))
            refusal = self._refusal(response, attempt)
            if last or response.status_code not in AGAIN or (wished or 0) > MAX_PAUSE:
                raise refusal
            time.sleep(_pause(attempt) if wished is None else wished)
        raise AssertionError  # the last attempt returns or raises

    def _send(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        library = _httpx()
        request = self._client.build_request("POST", f"{self.base_url}/{path}", json=dict(body))
        try:
            response: httpx.Response = self._client.send(request, stream=True)
        except library.TimeoutException as error:
            raise self._unavailable("took too long", error) from None
        except library.HTTPError as error:
            raise self._unavailable("cannot be reached", error) from None
        return response

    def _unavailable(self, what: str, error: Exception) -> EndpointUnavailableError:
        return EndpointUnavailableError(
            f"{self.base_url} {what}.",
            why=self._clean(str(error) or type(error).__name__),
            fix="Look whether it runs, or give it more time with timeout=.",
            url=self.base_url,
        )

    def _refusal(self, response: httpx.Response, attempt: int) -> EndpointError:
        """The error for a status code, with what the endpoint says about it."""
        try:
            said = _message(self._read(response))
        except EndpointError:
            said = ""
        finally:
            response.close()
        status = response.status_code
        kind: type[EndpointError] = EndpointError
        what, fix = "refused the request", "Look at the model's name, base_url and what the endpoint says."
        if status in (401, 403):
            kind, what, fix = EndpointAuthError, "refused the key", "Give api_key=, or look at what the key may do."
        elif status == 413:
            fix = "Give it less to read: a smaller passage_tokens=."
        elif 300 <= status < 400:
            fix = "Give the base_url that it redirects to; keys are not sent elsewhere."
        elif status in AGAIN:
            kind, what = EndpointUnavailableError, "is too busy" if status in (429, 529) else "failed"
            fix = "Try again later."
        return kind(
            f"{self.base_url} {what} (status {status}).",
            why=self._clean(said),
            fix=fix,
            url=self.base_url,
            status=status,
            attempts=attempt,
            retry_after=_retry_after(response.headers.get("retry-after")),
        )

    def _read(self, response: httpx.Response) -> str:
        httpx = _httpx()
        try:
            response.read()
        except httpx.HTTPError as error:
            raise self._broken(error) from None
        return response.text

    def _broken(self, error: Exception | None = None) -> EndpointReplyError:
        return EndpointReplyError(
            f"The reply of {self.base_url} broke off.",
            why=self._clean(str(error) or type(error).__name__) if error else "the stream ended before its end mark",
            fix="Ask again.",
            url=self.base_url,
        )

    def malformed(self, why: str) -> EndpointReplyError:
        """The error for a reply that is not what the protocol says."""
        return EndpointReplyError(
            f"The reply of {self.base_url} cannot be used.",
            why=self._clean(why),
            fix="Look whether base_url is that of a compatible endpoint.",
            url=self.base_url,
        )

    def broken_off(self) -> EndpointReplyError:
        """The error for a stream without its end."""
        return self._broken()

    def failed(self, event: Mapping[str, Any]) -> EndpointUnavailableError:
        """The error that an endpoint reports inside a stream."""
        return EndpointUnavailableError(
            f"{self.base_url} failed while it answered.",
            why=self._clean(_message(json.dumps(event))),
            fix="Ask again.",
            url=self.base_url,
        )

    def _json(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            raise self.malformed(f"not JSON: {text[:_SHOWN]}") from None

    def _object(self, text: str) -> dict[str, Any]:
        value = self._json(text)
        if not isinstance(value, dict):
            raise self.malformed(f"not a JSON object: {text[:_SHOWN]}")
        return value

    def _events(self, response: httpx.Response) -> Iterator[dict[str, Any] | None]:
        """Events of a server-sent stream: `data:` lines up to an empty line."""
        httpx = _httpx()
        data: list[str] = []
        size = 0
        try:
            for line in response.iter_lines():
                if line.startswith("data:"):
                    data.append(line[5:].removeprefix(" "))
                    size += len(line)
                    if size > _MAX_EVENT:
                        raise self.malformed(f"one event of more than {_MAX_EVENT} bytes")
                elif not line and data:
                    yield self._event("\n".join(data))
                    data, size = [], 0
        except httpx.HTTPError as error:
            raise self._broken(error) from None
        if data:  # some endpoints leave the last empty line away
            yield self._event("\n".join(data))

    def _event(self, data: str) -> dict[str, Any] | None:
        return None if data.strip() == "[DONE]" else self._object(data)

    def _clean(self, text: str) -> str:
        """A text for an error: short, on one line, and without the key where an endpoint repeats it."""
        for secret in self._secrets:
            for form in {secret, secret.removeprefix("Bearer ")}:
                text = text.replace(form, "***")
        flat = " ".join(text.split())
        return flat if len(flat) <= _SHOWN else flat[: _SHOWN - 1] + "…"


def parsed(endpoint: Endpoint, read: Callable[[], Any]) -> Any:
    """What `read` takes out of a reply; a reply of another shape is an EndpointReplyError."""
    try:
        return read()
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise endpoint.malformed(f"{type(error).__name__}: {error}") from None


def _message(text: str) -> str:
    """What an error body says: `{"error": {"message": ...}}` and its relatives, or the text itself."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    for _ in range(2):
        if isinstance(value, dict):
            value = value.get("error") or value.get("message") or value.get("detail") or value
    return value if isinstance(value, str) else json.dumps(value)


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header: a number, or a date."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _pause(attempt: int) -> float:
    """Seconds before the next attempt: doubled each time, and spread, so that many callers do not come back at once."""
    longest: float = min(MAX_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1))
    return longest * random.uniform(0.5, 1.0)


def _checked(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInputError("base_url is not an http or https address.", fix="For example https://host/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InvalidInputError("base_url holds more than an address.", fix="Give the key as api_key=.")
    return base_url.rstrip("/")


def _printable(secret: str) -> str:
    if not secret.isascii() or not secret.isprintable() or secret != secret.strip():
        raise InvalidInputError(
            "The key cannot be sent.", why="it holds white space at an end, or characters that a header cannot carry"
        )
    return secret


def _httpx() -> Any:
    try:
        import httpx
    except ImportError as error:
        raise MissingExtraError("httpx", extra="http", needed_for="A model behind an endpoint") from error
    return httpx

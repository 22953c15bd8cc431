"""What an API server's answers say: JSON objects, lines of a watch, errors, delays and warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import structlog

from controller.runtime.errors import ApiError, TransportError, from_status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

    from controller.runtime.client import JSON

_log = structlog.get_logger(__name__)

_TOO_MANY = 429
_SERVER_ERRORS = range(500, 600)


def decode(data: bytes) -> JSON:
    """Return the JSON object of a body.

    Raises:
        TransportError: it is none.
    """
    try:
        body = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise TransportError(f"the API server sent something that is not JSON: {data[:200]!r}") from error
    if not isinstance(body, dict):
        raise TransportError(f"the API server sent JSON that is not an object: {data[:200]!r}")
    return body


async def lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield whole lines of any length; aiohttp's own `readline` refuses those above its buffer's size."""
    rest: list[bytes] = []
    async for chunk in stream.iter_any():
        head, *tail = chunk.split(b"\n")
        rest.append(head)
        for part in tail:
            line = b"".join(rest)
            rest = [part]
            if line.strip():
                yield line
    if b"".join(rest).strip():
        raise TransportError("the watch stream ended within an event")


async def read_error(response: aiohttp.ClientResponse) -> ApiError:
    """Return the typed error of a response that is not a success, whether or not its body is a Status."""
    data = await response.read()
    try:
        status = msgspec.json.decode(data)
    except msgspec.DecodeError:
        status = None
    if not isinstance(status, dict) or status.get("kind") != "Status":
        text = data[:500].decode(errors="replace").strip() or response.reason or "no message"
        status = {"message": text}
    return from_status({"code": response.status} | status)


def retry_delay(response: aiohttp.ClientResponse) -> float | None:
    """Seconds to wait before the request may be repeated; None when the server did not ask for it."""
    value = response.headers.get("Retry-After", "")
    if not value.isdecimal() or not (response.status == _TOO_MANY or response.status in _SERVER_ERRORS):
        return None
    return float(value)


def log_warnings(response: aiohttp.ClientResponse, method: str, path: str) -> None:
    """Log the warnings by which a server tells of deprecated versions and ignored fields."""
    for warning in response.headers.getall("Warning", ()):
        _log.warning("server warns", method=method, path=path, text=warning)

"""The `log` subresource of pods: `kubectl logs`. Where the text comes from is the pod runner's affair."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web

from controller.runtime.errors import BadRequest

if TYPE_CHECKING:
    from controller.runtime.client import JSON


class LogRequest(NamedTuple):
    """What `kubectl logs` asks for.

    Attributes:
        pod: the Pod object.
        container: name of one of its containers.
        follow: go on with new text until the container ends.
        previous: the text of the container's run before the last restart.
        tail_lines: only so many lines from the end; None: all.
        since_seconds: only text younger than that; None: all.
        limit_bytes: at most so many bytes; None: all.
        timestamps: put an RFC 3339 time before each line, where it is known.
    """

    pod: JSON
    container: str
    follow: bool = False
    previous: bool = False
    tail_lines: int | None = None
    since_seconds: int | None = None
    limit_bytes: int | None = None
    timestamps: bool = False


PodLogs = Callable[[LogRequest], AsyncGenerator[bytes, None]]
"""Yields the text of a log in pieces; raises an ApiError when there is none."""


def parse(pod: JSON, query: dict[str, str]) -> LogRequest:
    """Read the parameters of a log request; BadRequest when the container is missing or unknown."""
    name = pod["metadata"]["name"]
    spec = pod.get("spec") or {}
    containers = [entry["name"] for entry in spec.get("containers") or ()]
    known = containers + [entry["name"] for entry in spec.get("initContainers") or ()]
    container = query.get("container", "")
    if not container and len(containers) == 1:
        container = containers[0]
    if not container:
        raise BadRequest(f"a container name must be specified for pod {name}, choose one of: {known}")
    if container not in known:
        raise BadRequest(f"container {container} is not valid for pod {name}, choose one of: {known}")
    return LogRequest(
        pod,
        container,
        follow=query.get("follow") == "true",
        previous=query.get("previous") == "true",
        tail_lines=_number(query, "tailLines"),
        since_seconds=_number(query, "sinceSeconds"),
        limit_bytes=_number(query, "limitBytes"),
        timestamps=query.get("timestamps") == "true",
    )


def _number(query: dict[str, str], name: str) -> int | None:
    if name not in query:
        return None
    try:
        return int(query[name])
    except ValueError:
        raise BadRequest(f"{name}: {query[name]!r} is not a number") from None


async def send(request: web.Request, pieces: AsyncGenerator[bytes, None]) -> web.StreamResponse:
    """Stream the pieces of a log. The first one is awaited before the headers, so a failure is an answer."""
    try:
        first = await anext(pieces, b"")
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        await response.write(first)
        async for piece in pieces:
            await response.write(piece)
        await response.write_eof()
    finally:
        await pieces.aclose()
    return response

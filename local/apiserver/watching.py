"""Watch streams: one line of JSON for each event, in the representation the client asked for."""

from __future__ import annotations

import random
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from controller.runtime.apiserver import WatchItem, WatchQuery, partial_metadata, table
from controller.runtime.errors import BadRequest, Gone
from local.apiserver.media import View

if TYPE_CHECKING:
    from collections.abc import Callable

    from controller.runtime.apiserver import Core, ServedKind
    from controller.runtime.client import JSON

    Encode = Callable[[WatchItem], bytes]

_MIN_TIMEOUT: Final = 1800
"""Seconds a watch lasts at least when the client does not say; kube-apiserver's `--min-request-timeout`."""


def query(parameters: dict[str, str]) -> WatchQuery:
    """Read the parameters of a watch request."""
    try:
        timeout = float(parameters.get("timeoutSeconds") or _MIN_TIMEOUT * (1 + random.random()))  # noqa: S311
    except ValueError:
        raise BadRequest(f"timeoutSeconds: {parameters['timeoutSeconds']!r} is not a number") from None
    return WatchQuery(
        parameters.get("labelSelector", ""),
        parameters.get("fieldSelector", ""),
        parameters.get("resourceVersion", ""),
        send_initial_events=parameters.get("sendInitialEvents") == "true",
        bookmarks=parameters.get("allowWatchBookmarks") == "true",
        timeout_seconds=timeout,
    )


async def send(
    request: web.Request,
    core: Core,
    kind: ServedKind,
    namespace: str,
    view: View,
) -> web.StreamResponse:
    """Answer a watch request until its time is over or the client leaves.

    A version too old to start from is an ERROR event with a 410 `Status`, as kube-apiserver sends it.
    """
    parameters = dict(request.query)
    encode = _encoder(core, kind, view, parameters.get("includeObject", "Metadata"))
    async with aclosing(core.watch(kind, namespace, query(parameters))) as batches:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        try:
            async for batch in batches:
                await response.write(b"".join(map(encode, batch)))
        except Gone as error:
            await response.write(_line("ERROR", msgspec.json.encode(error.to_status())))
        await response.write_eof()
    return response


def _line(event: str, body: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (event.encode(), body)


def _encoder(core: Core, kind: ServedKind, view: View, include: str) -> Encode:
    """Return what turns an event into its line. Full objects were encoded once for all watchers."""
    if view is View.FULL:
        return lambda item: _line(item.type, item.snapshot.encoded)
    if view is not View.TABLE:
        return lambda item: _line(item.type, msgspec.json.encode(partial_metadata(item.snapshot.object)))
    first = True

    def encode(item: WatchItem) -> bytes:
        nonlocal first
        obj = item.snapshot.object
        metadata: JSON = {"resourceVersion": obj["metadata"]["resourceVersion"]}
        rows = [] if item.type == "BOOKMARK" else [obj]
        body = table(kind, rows, now=core.clock(), metadata=metadata, include=include, with_columns=first)
        first = False
        return _line(item.type, msgspec.json.encode(body))

    return encode

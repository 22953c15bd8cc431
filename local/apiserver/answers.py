"""Answers to reads and writes: objects, lists and tables as JSON, warnings, and every error as a `Status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from aiohttp import web

from controller.runtime.apiserver import partial_metadata, table
from controller.runtime.errors import ApiError, InternalError, MethodNotAllowed, NotFound
from local.apiserver.media import View

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from controller.runtime.apiserver import Core, Page, ServedKind, Snapshot
    from controller.runtime.client import JSON

_log = structlog.get_logger(__name__)


def json(body: Any, *, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> web.Response:
    """Return `body`, encoded already or not, as JSON."""
    encoded = body if isinstance(body, bytes) else msgspec.json.encode(body)
    response = web.Response(body=encoded, status=status, content_type="application/json")
    response.headers.extend(headers)
    return response


def one(
    core: Core,
    kind: ServedKind,
    snapshot: Snapshot,
    view: View,
    *,
    include: str = "Metadata",
    status: int = 200,
    warnings: Iterable[str] = (),
) -> web.Response:
    """Return one object."""
    headers = [("Warning", f'299 - "{_quoted(text)}"') for text in warnings]
    if view is View.TABLE:
        metadata = {"resourceVersion": snapshot.object["metadata"].get("resourceVersion", "")}
        body: Any = table(kind, [snapshot.object], now=core.clock(), metadata=metadata, include=include)
    elif view is View.METADATA:
        body = partial_metadata(snapshot.object)
    else:
        body = snapshot.encoded
    return json(body, status=status, headers=headers)


def many(core: Core, kind: ServedKind, page: Page, view: View, *, include: str = "Metadata") -> web.Response:
    """Return a page of a list."""
    metadata: JSON = {"resourceVersion": str(page.version)}
    if page.continue_token:
        metadata |= {"continue": page.continue_token, "remainingItemCount": page.remaining}
    if view is View.TABLE:
        objects = (item.object for item in page.items)
        return json(table(kind, objects, now=core.clock(), metadata=metadata, include=include))
    if view is View.METADATA_LIST:
        items = [partial_metadata(item.object) for item in page.items]
        head = {"kind": view.value, "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
        return json(head | {"items": items})
    head = {
        "kind": f"{kind.resource.kind}List",
        "apiVersion": kind.resource.api_version,
        "metadata": metadata,
    }
    opening = msgspec.json.encode(head)[:-1]
    return json(opening + b',"items":[' + b",".join(item.encoded for item in page.items) + b"]}")


def deleted(kind: ServedKind, snapshot: Snapshot, *, gone: bool) -> web.Response:
    """Return the answer to a deletion: success when the object is gone, else the object as it still is."""
    if not gone:
        return json(snapshot.encoded)
    metadata, resource = snapshot.object["metadata"], kind.resource
    details = {
        "name": metadata["name"],
        "group": resource.group,
        "kind": resource.plural,
        "uid": metadata["uid"],
    }
    return json(
        {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    )


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


@web.middleware
async def errors_as_status(
    request: web.Request,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> web.StreamResponse:
    """Answer every failure with a `Status` object, which is what all Kubernetes clients read."""
    try:
        return await handler(request)
    except ApiError as error:
        return _failure(error)
    except web.HTTPNotFound:
        return _failure(NotFound("the server could not find the requested resource"))
    except web.HTTPMethodNotAllowed:
        return _failure(MethodNotAllowed("the server does not allow this method on the requested resource"))
    except web.HTTPException as error:
        return _failure(ApiError(error.reason, status=error.status, reason=""))
    except Exception as error:  # noqa: BLE001 -- logged, and an answer all the same
        _log.exception("request failed", method=request.method, path=request.path)
        return _failure(InternalError(f"Internal error occurred: {type(error).__name__}: {error}"))


def _failure(error: ApiError) -> web.Response:
    headers = [("Retry-After", str(int(error.retry_after)))] if error.retry_after else []
    return json(error.to_status(), status=error.status, headers=headers)

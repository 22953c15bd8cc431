"""Requests on resources: the verbs of the API, each turned into one call of the core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from controller.runtime.apiserver import DeleteOptions, FieldValidation, ListQuery, WriteOptions
from controller.runtime.client import PatchKind
from controller.runtime.errors import BadRequest, MethodNotAllowed, UnsupportedMediaType
from local.apiserver import answers, logs, media, target, watching

if TYPE_CHECKING:
    from aiohttp import web

    from controller.runtime.apiserver import Core
    from local.apiserver.logs import PodLogs
    from local.apiserver.target import Target


_PROPAGATION_POLICIES: Final = ("Background", "Foreground", "Orphan")


class Resources:
    """Serves `/api/v1/…` and `/apis/GROUP/VERSION/…`."""

    def __init__(self, core: Core, pod_logs: PodLogs) -> None:
        self._core = core
        self._pod_logs = pod_logs

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one request on a resource."""
        group = request.match_info.get("group", "")
        found = target.parse(self._core, group, request.match_info["version"], request.match_info["path"])
        match request.method, bool(found.name):
            case "GET", False:
                return await self._list_or_watch(request, found)
            case "GET", True:
                return await self._get(request, found)
            case "POST", False:
                return await self._create(request, found)
            case "PUT", True:
                return await self._replace(request, found)
            case "PATCH", True:
                return await self._patch(request, found)
            case "DELETE", named:
                return await (self._delete if named else self._delete_all)(request, found)
            case method, _:
                raise MethodNotAllowed(f"{method} is not supported on {found.kind.resource.plural} here")

    async def _list_or_watch(self, request: web.Request, found: Target) -> web.StreamResponse:
        view = media.view(request)
        if request.query.get("watch") in {"true", "1"}:
            return await watching.send(request, self._core, found.kind, found.namespace, view)
        page = self._core.list(found.kind, found.namespace, _list_query(request))
        return answers.many(self._core, found.kind, page, view, include=_include(request))

    async def _get(self, request: web.Request, found: Target) -> web.StreamResponse:
        if found.kind.resource.plural == "pods" and found.subresource == "log":
            pod = self._core.get(found.kind, found.name, found.namespace).object
            wanted = logs.parse(pod, dict(request.query))
            return await logs.send(request, self._pod_logs(wanted))
        view = media.view(request)
        snapshot = self._core.get(found.kind, found.name, found.namespace, subresource=found.subresource)
        return answers.one(self._core, found.kind, snapshot, view, include=_include(request))

    async def _create(self, request: web.Request, found: Target) -> web.Response:
        options = _write_options(request)
        snapshot = self._core.create(found.kind, await media.read(request), found.namespace, options)
        view = media.view(request)
        return answers.one(self._core, found.kind, snapshot, view, status=201, warnings=options.warnings)

    async def _replace(self, request: web.Request, found: Target) -> web.Response:
        options = _write_options(request)
        body = await media.read(request)
        if isinstance(body, dict) and isinstance(body.get("metadata"), dict):
            name = body["metadata"].setdefault("name", found.name)
            if name != found.name:
                raise BadRequest(f"the object is called {name}, the name on the URL is {found.name}")
        snapshot = self._core.replace(
            found.kind,
            body,
            found.namespace,
            subresource=found.subresource,
            options=options,
        )
        return answers.one(self._core, found.kind, snapshot, media.view(request), warnings=options.warnings)

    async def _patch(self, request: web.Request, found: Target) -> web.Response:
        options = _write_options(request)
        if request.content_type == media.APPLY_TYPE:
            return await self._apply(request, found, options)
        try:
            kind = PatchKind(request.content_type)
        except ValueError:
            raise UnsupportedMediaType(
                f"the body of the request was in an unknown format ({request.content_type}) - accepted media "
                f"types include: {', '.join(PatchKind)}, {media.APPLY_TYPE}",
            ) from None
        snapshot = self._core.patch(
            found.kind,
            found.name,
            found.namespace,
            await media.read(request),
            kind,
            subresource=found.subresource,
            options=options,
        )
        return answers.one(self._core, found.kind, snapshot, media.view(request), warnings=options.warnings)

    async def _apply(self, request: web.Request, found: Target, options: WriteOptions) -> web.Response:
        if not request.query.get("fieldManager"):
            raise BadRequest("fieldManager: Required value: is required for apply patch")
        body = await media.read(request)
        if isinstance(body, dict) and isinstance(body.get("metadata"), dict | None):
            body["metadata"] = {"name": found.name, **(body.get("metadata") or {})}
            if body["metadata"]["name"] != found.name:
                raise BadRequest(
                    f"the object is called {body['metadata']['name']}, not {found.name} as the URL"
                )
        snapshot = self._core.apply(
            found.kind,
            body,
            found.namespace,
            force=request.query.get("force") == "true",
            subresource=found.subresource,
            options=options,
        )
        return answers.one(self._core, found.kind, snapshot, media.view(request), warnings=options.warnings)

    async def _delete(self, request: web.Request, found: Target) -> web.Response:
        options = await _delete_options(request)
        snapshot, gone = self._core.delete(found.kind, found.name, found.namespace, options)
        return answers.deleted(found.kind, snapshot, gone=gone)

    async def _delete_all(self, request: web.Request, found: Target) -> web.Response:
        options = await _delete_options(request)
        page = self._core.list(found.kind, found.namespace, _list_query(request))
        for snapshot in page.items:
            metadata = snapshot.object["metadata"]
            self._core.delete(found.kind, metadata["name"], metadata.get("namespace", ""), options)
        return answers.many(self._core, found.kind, page, media.view(request))


def _include(request: web.Request) -> str:
    return request.query.get("includeObject", "Metadata")


def _list_query(request: web.Request) -> ListQuery:
    query = request.query
    try:
        limit = int(query.get("limit") or 0)
    except ValueError:
        raise BadRequest(f"limit: {query['limit']!r} is not a number") from None
    labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
    return ListQuery(labels, fields, limit, query.get("continue", ""))


def _write_options(request: web.Request) -> WriteOptions:
    query = request.query
    manager = query.get("fieldManager") or request.headers.get("User-Agent", "unknown").partition("/")[0]
    try:
        validation = FieldValidation(query.get("fieldValidation") or FieldValidation.WARN)
    except ValueError:
        allowed = ", ".join(FieldValidation)
        raise BadRequest(f"fieldValidation: {query['fieldValidation']!r} is not one of {allowed}") from None
    return WriteOptions(validation, dry_run=_dry_run(query.getall("dryRun", [])), field_manager=manager)


def _dry_run(values: list[str]) -> bool:
    if values and values != ["All"]:
        raise BadRequest(f"dryRun: {values} is not supported, the only value is All")
    return bool(values)


def _seconds(grace: Any) -> int | None:
    try:
        return None if grace is None else int(grace)
    except (TypeError, ValueError):
        raise BadRequest(f"gracePeriodSeconds: {grace!r} is not a number") from None


async def _delete_options(request: web.Request) -> DeleteOptions:
    """Read the options of a deletion: from the body, where there is one, else from the query."""
    body: Any = await media.read(request) if request.can_read_body else None
    body = body if isinstance(body, dict) else {}
    preconditions = body.get("preconditions") or {}
    if not isinstance(preconditions, dict):
        raise BadRequest("preconditions: an object with uid or resourceVersion is expected")
    default = "Orphan" if body.get("orphanDependents") else "Background"
    policy = body.get("propagationPolicy") or request.query.get("propagationPolicy") or default
    if policy not in _PROPAGATION_POLICIES:
        allowed = ", ".join(_PROPAGATION_POLICIES)
        raise BadRequest(f"propagationPolicy: {policy!r} is not one of {allowed}")
    return DeleteOptions(
        resource_version=preconditions.get("resourceVersion") or "",
        uid=preconditions.get("uid") or "",
        propagation=policy,
        grace_seconds=_seconds(body.get("gracePeriodSeconds", request.query.get("gracePeriodSeconds"))),
        dry_run=_dry_run(body.get("dryRun") or request.query.getall("dryRun", [])),
    )

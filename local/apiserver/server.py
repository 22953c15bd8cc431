"""The HTTP server: routes, start and stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from controller.runtime.errors import NotFound
from local.apiserver import answers, discovery, media
from local.apiserver.errors import AddressInUse
from local.apiserver.openapi import PROTOBUF_2, PROTOBUF_2_TYPE, Documents
from local.apiserver.resources import Resources

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from controller.runtime.apiserver import Core
    from controller.runtime.client import JSON
    from local.apiserver.logs import PodLogs

VERSION: Final = {
    "major": "1",
    "minor": "32",
    "gitVersion": "v1.32.0+modelmesh-local",
    "platform": "linux/amd64",
}
"""What `kubectl version` shows; the minor version is that of the Kubernetes API which is followed."""

_MAX_BODY_BYTES: Final = 3 * 1024 * 1024
"""kube-apiserver's limit of a request body."""


class LocalApiServer:
    """A Kubernetes API server on one TCP address, without TLS or authentication: bind it to loopback only.

    Args:
        core: what it serves.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        pod_logs: where the logs of pods come from.
    """

    def __init__(self, core: Core, *, host: str = "127.0.0.1", port: int = 0, pod_logs: PodLogs) -> None:
        self._core = core
        self._host = host
        self._port = port
        self._documents = Documents(core)
        self._runner = web.AppRunner(
            self._application(Resources(core, pod_logs)),
            # A client that leaves ends its watch at once, not with the next event.
            handler_cancellation=True,
            access_log=None,
            shutdown_timeout=1.0,
        )

    @property
    def port(self) -> int:
        """The port it listens on, known once it is started."""
        return self._port

    @property
    def url(self) -> str:
        """Base URL for clients."""
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen; AddressInUse when the port is taken."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise AddressInUse(self._host, self._port, error) from error
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """End all watches and stop listening."""
        self._core.close()
        await self._runner.cleanup()

    def _application(self, resources: Resources) -> web.Application:
        application = web.Application(
            middlewares=[answers.errors_as_status],
            client_max_size=_MAX_BODY_BYTES,
        )
        routes: list[tuple[str, Callable[[web.Request], Awaitable[web.StreamResponse]]]] = [
            ("/", self._root),
            ("/healthz", self._health),
            ("/livez", self._health),
            ("/readyz", self._health),
            ("/version", self._version),
            ("/api", self._core_versions),
            ("/api/{version}", self._resource_list),
            ("/apis", self._groups),
            ("/apis/{group}", self._group),
            ("/apis/{group}/{version}", self._resource_list),
            ("/openapi/v2", self._openapi_2),
            ("/openapi/v3", self._openapi_index),
            ("/openapi/v3/{path:.+}", self._openapi_3),
        ]
        for path, handler in routes:
            application.router.add_get(path, handler)
        for prefix in ("/api/{version}", "/apis/{group}/{version}"):
            application.router.add_route("*", prefix + "/{path:.+}", resources.handle)
        return application

    async def _root(self, _request: web.Request) -> web.Response:
        paths = ["/api", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
        return answers.json({"paths": paths})

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _version(self, _request: web.Request) -> web.Response:
        return answers.json(VERSION)

    async def _core_versions(self, request: web.Request) -> web.Response:
        if media.view(request) is media.View.DISCOVERY:
            return _aggregated(discovery.aggregated(self._core, legacy=True))
        return answers.json(discovery.core_versions(request.host))

    async def _groups(self, request: web.Request) -> web.Response:
        if media.view(request) is media.View.DISCOVERY:
            return _aggregated(discovery.aggregated(self._core, legacy=False))
        return answers.json(discovery.group_list(self._core))

    async def _group(self, request: web.Request) -> web.Response:
        return _found(discovery.group(self._core, request.match_info["group"]))

    async def _resource_list(self, request: web.Request) -> web.Response:
        group = request.match_info.get("group", "")
        return _found(discovery.resource_list(self._core, group, request.match_info["version"]))

    async def _openapi_2(self, request: web.Request) -> web.Response:
        if PROTOBUF_2_TYPE in request.headers.get("Accept", ""):
            # kube-apiserver answers with a dot: clients that parse media types refuse the "@" they ask with.
            return web.Response(body=PROTOBUF_2, content_type=PROTOBUF_2_TYPE.replace("@", "."))
        return answers.json(self._documents.version_2())

    async def _openapi_index(self, _request: web.Request) -> web.Response:
        return answers.json(self._documents.index())

    async def _openapi_3(self, request: web.Request) -> web.Response:
        document = self._documents.version_3(request.match_info["path"])
        if document is None:
            raise NotFound("the server could not find the requested resource")
        # The index names each document with its hash, so clients may keep it for ever.
        return answers.json(document, headers=[("Cache-Control", "public, immutable, max-age=31536000")])


def _found(document: JSON | None) -> web.Response:
    if document is None:
        raise NotFound("the server could not find the requested resource")
    return answers.json(document)


def _aggregated(document: JSON) -> web.Response:
    response = answers.json(document)
    response.headers["Content-Type"] = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    return response

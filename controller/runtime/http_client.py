"""The client of a real Kubernetes API server, over HTTP.

kubernetes-asyncio reads the kubeconfig or the pod's service account and makes the TLS session; requests,
errors, retries and the watch stream are here, with bodies as raw JSON.

Retries are those that are always safe. A server that sheds load says how long to wait (429, or 5xx, with
Retry-After) and has done nothing: that is honoured here. Every other failure is the caller's: a reconciler
is re-queued with back-off, a reflector backs off by itself.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec
import structlog

from controller.runtime import fence, metrics
from controller.runtime._kubernetes import Configuration, RESTClientObject, config
from controller.runtime.client import JSON, JSONPatch, ListPage, PatchKind, WatchEvent
from controller.runtime.errors import ConfigurationError, TransportError, Unauthorized, from_status
from controller.runtime.http_response import decode, lines, log_warnings, read_error, retry_delay

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from aiohttp.abc import AbstractStreamWriter

    from api.resource import Resource

_log = structlog.get_logger(__name__)

MAX_RETRIES = 10
"""Retries of one request that the server asked to repeat later; as many as client-go makes."""
MAX_RETRY_AFTER = 30.0
"""Seconds; a longer Retry-After is the caller's to wait for, as its own back-off."""
_APPLY = "application/apply-patch+yaml"
_OK = range(200, 300)


def resource_path(resource: Resource, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """Return the URL path of a resource type, an object or one of its subresources."""
    parts = ["apis", resource.group, resource.version] if resource.group else ["api", resource.version]
    if namespace and resource.namespaced:
        parts += ["namespaces", namespace]
    parts += [part for part in (resource.plural, name, subresource) if part]
    return "/" + "/".join(quote(part, safe="") for part in parts)


def environment_proxy(url: str) -> str | None:
    """Return the proxy that HTTPS_PROXY (HTTP_PROXY) and NO_PROXY ask for, to reach `url`."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)


class HttpClient:
    """`Client` over HTTP. Use it as an async context manager, or call `close`.

    Args:
        configuration: where the API server is and how to authenticate.
        user_agent: names this program to the server; its part before a slash becomes the field manager of
            writes.
        request_timeout: seconds that one request, other than a watch, may take.
        reload: reads the credentials anew into the configuration; called once when a request is answered 401.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        user_agent: str = "controller-runtime",
        request_timeout: float = 60.0,
        reload: Callable[[Configuration], Awaitable[object]] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._configuration = configuration
        self._rest = RESTClientObject(configuration)
        # Its own session asks the environment, and a thread for ~/.netrc, at every request.
        self._session = aiohttp.ClientSession(
            connector=self._rest.pool_manager.connector, connector_owner=False
        )
        self._base: str = configuration.host.rstrip("/")
        self._host = self._base.partition("://")[2]
        self._proxy = self._rest.proxy or environment_proxy(self._base)
        self._user_agent = user_agent
        self._timeout = aiohttp.ClientTimeout(total=request_timeout)
        self._reload = reload
        self._sleep = sleep

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()
        await self._rest.close()

    async def get(self, resource: Resource, name: str, namespace: str = "") -> JSON:
        """Return one object."""
        return await self._request("GET", resource_path(resource, namespace, name))

    async def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_token: str = "",
    ) -> ListPage:
        """Return one page of objects."""
        query = {
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "limit": str(limit) if limit else "",
            "continue": continue_token,
        }
        body = await self._request("GET", resource_path(resource, namespace), query)
        kind = {"apiVersion": resource.api_version, "kind": resource.kind}
        metadata = body.get("metadata") or {}
        return ListPage(
            [kind | item for item in body.get("items") or ()],
            metadata.get("resourceVersion", ""),
            metadata.get("continue", ""),
        )

    async def create(self, resource: Resource, obj: JSON) -> JSON:
        """Create an object in the namespace its metadata names."""
        return await self._request(
            "POST", resource_path(resource, _namespace(obj)), body=_typed(resource, obj)
        )

    async def replace(self, resource: Resource, obj: JSON, *, subresource: str = "") -> JSON:
        """Write the whole object."""
        path = resource_path(resource, _namespace(obj), obj["metadata"]["name"], subresource)
        return await self._request("PUT", path, body=_typed(resource, obj, subresource))

    async def patch(
        self,
        resource: Resource,
        name: str,
        namespace: str,
        patch: JSON | JSONPatch,
        *,
        kind: PatchKind = PatchKind.MERGE,
        subresource: str = "",
    ) -> JSON:
        """Change part of an object."""
        path = resource_path(resource, namespace, name, subresource)
        return await self._request("PATCH", path, body=patch, content_type=kind)

    async def apply(
        self,
        resource: Resource,
        obj: JSON,
        *,
        field_manager: str,
        force: bool = True,
        subresource: str = "",
    ) -> JSON:
        """Server-side apply."""
        path = resource_path(resource, _namespace(obj), obj["metadata"]["name"], subresource)
        query = {"fieldManager": field_manager, "force": "true" if force else "false"}
        return await self._request(
            "PATCH", path, query, body=_typed(resource, obj, subresource), content_type=_APPLY
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        resource_version: str = "",
        propagation: str = "Background",
    ) -> None:
        """Delete an object."""
        options: JSON = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        if resource_version:
            options["preconditions"] = {"resourceVersion": resource_version}
        await self._request("DELETE", resource_path(resource, namespace, name), body=options)

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = 300,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Yield changes after `resource_version`.

        Raises:
            TransportError: the stream broke off within a line, or the connection was lost.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "timeoutSeconds": str(timeout_seconds),
        }
        path = resource_path(resource, namespace)
        forever = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout.total)
        async with self._send("GET", path, query, timeout=forever) as response:
            async for line in lines(response.content):
                event = decode(line)
                if event.get("type") == "ERROR":
                    raise from_status(event.get("object") or {})
                yield WatchEvent(event["type"], event["object"])

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: JSON | JSONPatch | None = None,
        content_type: str = "application/json",
    ) -> JSON:
        async with self._send(method, path, query, body=body, content_type=content_type) as response:
            return decode(await response.read())

    @asynccontextmanager
    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: JSON | JSONPatch | None = None,
        content_type: str = "application/json",
        timeout: aiohttp.ClientTimeout | None = None,  # noqa: ASYNC109 -- handed on to aiohttp
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request until it is answered with success; raise what it fails with."""
        url = self._base + path
        parameters = {key: value for key, value in (query or {}).items() if value}
        if parameters:
            url += "?" + urlencode(parameters)
        arguments: dict[str, Any] = {"timeout": timeout or self._timeout}
        if body is not None:
            arguments["data"] = _Body(msgspec.json.encode(body), content_type=content_type)
        if self._proxy:
            arguments |= {"proxy": self._proxy, "proxy_headers": self._rest.proxy_headers}
        if self._rest.server_hostname:
            arguments["server_hostname"] = self._rest.server_hostname
        retries, reloaded = 0, False
        while True:
            headers = await self._headers(content_type if body is not None else "")
            try:
                async with self._session.request(method, url, headers=headers, **arguments) as response:
                    metrics.REQUESTS.labels(str(response.status), method, self._host).inc()
                    if response.status in _OK:
                        log_warnings(response, method, path)
                        yield response
                        return
                    error = await read_error(response)
                    delay = retry_delay(response)
            except (aiohttp.ClientError, TimeoutError, OSError) as cause:
                metrics.REQUESTS.labels("<error>", method, self._host).inc()
                fence.check()
                raise TransportError(f"{method} {self._base}{path}: {str(cause) or repr(cause)}") from cause
            if isinstance(error, Unauthorized) and self._reload is not None and not reloaded:
                reloaded = True
                await self._reload(self._configuration)
                continue
            if delay is None or delay > MAX_RETRY_AFTER or retries == MAX_RETRIES:
                raise error
            retries += 1
            _log.info("server asks to retry", method=method, path=path, status=error.status, seconds=delay)
            await self._sleep(delay)

    async def _headers(self, content_type: str) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": self._user_agent}
        if content_type:
            headers["Content-Type"] = content_type
        for setting in (await self._configuration.auth_settings()).values():
            headers[setting["key"]] = setting["value"]
        return headers


class _Body(aiohttp.BytesPayload):
    """A body that goes out only while its writer may write; every write here has a body.

    Raised in the middle of a request, the refusal comes out of aiohttp as a broken connection.
    """

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        fence.check()
        await super().write_with_length(writer, content_length)


async def load_client(
    kubeconfig: Path | None = None, *, user_agent: str = "controller-runtime"
) -> HttpClient:
    """Return a client for the API server this program is meant to use.

    That is, first found: the file `kubeconfig`, those named by KUBECONFIG, the pod's service account,
    ~/.kube/config.

    Raises:
        ConfigurationError: none of these can be used; the message says which and why.
    """
    paths = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG", "")
    in_cluster = not paths and bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
    source = "the pod's service account" if in_cluster else paths or "~/.kube/config"

    async def load(configuration: Configuration) -> None:
        if in_cluster:
            config.load_incluster_config(client_configuration=configuration)
        else:
            await config.load_kube_config(source, client_configuration=configuration, persist_config=False)

    configuration = Configuration()
    try:
        await load(configuration)
    except (config.ConfigException, OSError) as error:
        raise ConfigurationError(
            f"cannot use {source} to reach the Kubernetes API: {error}; "
            "set KUBECONFIG to a valid kubeconfig file"
        ) from error
    return HttpClient(configuration, user_agent=user_agent, reload=load)


def _typed(resource: Resource, obj: JSON, subresource: str = "") -> JSON:
    """Return the object with its type, which a server asks of custom resources; a Scale has its own."""
    if subresource == "scale":
        return obj
    return {"apiVersion": resource.api_version, "kind": resource.kind, **obj}


def _namespace(obj: JSON) -> str:
    return str(obj["metadata"].get("namespace") or "")

"""The two servers on which the same promises are checked: the core in memory, and a real kube-apiserver.

A test here is evidence about the core only because it passes on the real one.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import pytest

from api.core import NAMESPACE
from api.resource import Resource
from controller.runtime.apiserver import Core, MemoryClient
from controller.runtime.testing import install_definitions
from local.apiserver import LocalApiServer

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from controller.runtime import Client
    from controller.runtime.testing import KubeApiServer

JSON = dict[str, Any]

WIDGET = Resource("conformance.example.com", "v1", "Widget", "widgets")
DEFINITION: JSON = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.conformance.example.com"},
    "spec": {
        "group": "conformance.example.com",
        "scope": "Namespaced",
        "names": {"kind": "Widget", "plural": "widgets", "singular": "widget", "listKind": "WidgetList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
                    {"name": "Off", "type": "boolean", "jsonPath": ".spec.off", "priority": 1},
                ],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "required": ["spec"],
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["size"],
                                "properties": {
                                    "size": {"type": "integer", "minimum": 1, "maximum": 9},
                                    "off": {"type": "boolean"},
                                    "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
                                    "tags": {"type": "object", "additionalProperties": {"type": "string"}},
                                    "list": {"type": "array", "items": {"type": "string"}},
                                    "parts": {
                                        "type": "array",
                                        "x-kubernetes-list-type": "map",
                                        "x-kubernetes-list-map-keys": ["name"],
                                        "items": {
                                            "type": "object",
                                            "required": ["name"],
                                            "properties": {
                                                "name": {"type": "string"},
                                                "weight": {"type": "integer", "default": 1},
                                            },
                                        },
                                    },
                                },
                            },
                            "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
                        },
                    },
                },
            },
        ],
    },
}


class Answer(NamedTuple):
    """A raw answer: HTTP status, body, and what the `Warning` headers say."""

    status: int
    body: JSON
    warnings: list[str]


def _text(warning: str) -> str:
    """The text of a header such as `299 - "unknown field \\"spec.x\\""`."""
    return str(json.loads(warning[warning.index('"') :]))


class Backend:
    """A server under test.

    Attributes:
        client: the administrator's.
        namespace: one that is the test's own.
        oldest: a resourceVersion that the server has forgotten once `forget` was called.
    """

    def __init__(self, client: Client, namespace: str, url: str, tls: ssl.SSLContext | None) -> None:
        self.client, self.namespace = client, namespace
        self._url, self._tls = url, tls
        self.oldest = "1"

    async def forget(self) -> None:
        """Lose the history."""
        raise NotImplementedError

    async def raw(
        self, method: str, path: str, body: JSON | None = None, headers: JSON | None = None
    ) -> Answer:
        """Send a request as it is; the path is below the server with a slash, else below the widgets."""
        group = f"/apis/{WIDGET.group}/{WIDGET.version}/namespaces/{self.namespace}/"
        url = self._url + (path if path.startswith("/") else group + path)
        data = json.dumps(body) if body is not None else None
        headers = {"Content-Type": "application/json", "Accept": "application/json"} | (headers or {})
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, data=data, headers=headers, ssl=self._tls or True) as response,
        ):
            warnings = [_text(header) for header in response.headers.getall("Warning", ())]
            return Answer(response.status, await response.json(content_type=None), warnings)


class MemoryBackend(Backend):
    def __init__(self, core: Core, namespace: str, url: str) -> None:
        super().__init__(MemoryClient(core), namespace, url, None)
        self._core = core

    async def forget(self) -> None:
        self._core.forget_history()


class RealBackend(Backend):
    def __init__(self, server: KubeApiServer, client: Client, namespace: str) -> None:
        super().__init__(client, namespace, server.url, server.tls)
        self._server = server

    async def forget(self) -> None:
        await self._server.stop_server()  # its watch cache is a history too
        await self._server.compact()
        await self._server.start_server()


@pytest.fixture(params=["memory", pytest.param("real", marks=[pytest.mark.e2e, pytest.mark.kube_server])])
def real_server(request: pytest.FixtureRequest) -> KubeApiServer | None:
    """The real server; None stands for the one in memory."""
    return request.getfixturevalue("kube_server") if request.param == "real" else None


@pytest.fixture
async def backend(real_server: KubeApiServer | None) -> AsyncIterator[Backend]:
    namespace = f"test-{secrets.token_hex(4)}"
    if real_server is None:
        core = Core(namespaces=(namespace,))
        core.register_definition(DEFINITION)
        server = LocalApiServer(core, pod_logs=None)  # type: ignore[arg-type]
        await server.start()
        yield MemoryBackend(core, namespace, server.url)
        await server.stop()
        return
    async with await real_server.client() as client:
        await client.create(NAMESPACE, {"metadata": {"name": namespace}})
        await install_definitions(client, [DEFINITION])
        yield RealBackend(real_server, client, namespace)


@pytest.fixture
def client(backend: Backend) -> Client:
    return backend.client


@pytest.fixture
def namespace(backend: Backend) -> str:
    return backend.namespace


@pytest.fixture
def widget_type() -> Resource:
    return WIDGET


@pytest.fixture
def widget(namespace: str) -> JSON:
    return {
        "apiVersion": WIDGET.api_version,
        "kind": WIDGET.kind,
        "metadata": {"name": "w", "namespace": namespace},
        "spec": {"size": 3},
    }


@pytest.fixture
def config(namespace: str) -> Any:
    def make(name: str, data: JSON | None = None, **metadata: Any) -> JSON:
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace, **metadata},
            "data": data or {"k": "v"},
        }

    return make

"""The HTTP client against a small server that answers as an API server would."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from aiohttp import web

from api.core import CONFIG_MAP, DEPLOYMENT, NAMESPACE
from controller.runtime import HttpClient, PatchKind, load_client
from controller.runtime._kubernetes import Configuration
from controller.runtime.errors import (
    ConfigurationError,
    Conflict,
    Gone,
    Invalid,
    NotFound,
    ServiceUnavailable,
    TooManyRequests,
    TransportError,
    Unauthorized,
)
from controller.runtime.fence import FencedClient, WriteRefusedError
from controller.runtime.http_client import MAX_RETRIES, environment_proxy, resource_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Server:
    """Records requests and answers them with what `handler` returns."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes, Any]] = []
        self.handler: Any = None
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append((request.method, request.path_qs, body, request.headers))
        return await self.handler(request)

    def answers(self, *answers: Any) -> None:
        """Answer one after the other, the last one again and again; (status, body, headers)."""
        left = list(answers)

        async def handler(_request: web.Request) -> web.StreamResponse:
            status, body, headers = left.pop(0) if len(left) > 1 else left[0]
            text = body if isinstance(body, str) else json.dumps(body)
            return web.Response(status=status, text=text, headers=headers)

        self.handler = handler

    def streams(self, *chunks: Any) -> None:
        """Answer with a stream of these chunks, each a write of its own."""

        async def handler(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            for chunk in chunks:
                await response.write(chunk)
                await asyncio.sleep(0)
            return response

        self.handler = handler


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


def write_kubeconfig(path: Path, url: str, user: dict[str, str] | None = None) -> Path:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": user or {}}],
    }
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
async def http(server: Server, tmp_path: Path) -> AsyncIterator[HttpClient]:
    path = write_kubeconfig(tmp_path / "kubeconfig", server.url, {"token": "secret-token"})
    async with await load_client(path, user_agent="tests/1") as client:
        client.slept = []

        async def sleep(seconds: Any) -> None:
            client.slept.append(seconds)

        client._sleep = sleep
        yield client


def status(code: int, reason: str, **more: Any) -> dict[str, Any]:
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "why", **more}


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ((CONFIG_MAP, "ns", "c"), "/api/v1/namespaces/ns/configmaps/c"),
        ((CONFIG_MAP,), "/api/v1/configmaps"),
        ((DEPLOYMENT, "ns", "d", "status"), "/apis/apps/v1/namespaces/ns/deployments/d/status"),
        ((NAMESPACE, "", "x"), "/api/v1/namespaces/x"),
        ((NAMESPACE, "ignored", "x"), "/api/v1/namespaces/x"),
    ],
)
def test_urls_are_those_of_the_api(arguments: Any, path: Path) -> None:
    assert resource_path(*arguments) == path


async def test_requests_carry_credentials_and_name_the_program(server: Server, http: HttpClient) -> None:
    server.answers((200, {"metadata": {"name": "c"}}, {}))
    assert await http.get(CONFIG_MAP, "c", "ns") == {"metadata": {"name": "c"}}
    method, path, _, headers = server.requests[0]
    assert (method, path) == ("GET", "/api/v1/namespaces/ns/configmaps/c")
    assert headers["Authorization"] == "Bearer secret-token"
    assert headers["User-Agent"] == "tests/1"


async def test_a_list_is_paged_and_its_items_say_what_they_are(server: Server, http: HttpClient) -> None:
    first = {"metadata": {"resourceVersion": "7", "continue": "more"}, "items": [{"metadata": {"name": "a"}}]}
    last = {"metadata": {"resourceVersion": "7"}, "items": None}
    server.answers((200, first, {}), (200, last, {}))
    page = await http.list(DEPLOYMENT, "ns", label_selector="a=b", limit=1)
    assert page.continue_token == "more"
    assert page.resource_version == "7"
    assert page.items == [{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}}]
    page = await http.list(DEPLOYMENT, "ns", limit=1, continue_token=page.continue_token)
    assert (page.items, page.continue_token) == ([], "")
    assert server.requests[0][1].endswith("deployments?labelSelector=a%3Db&limit=1")
    assert server.requests[1][1].endswith("deployments?limit=1&continue=more")


async def test_each_kind_of_write_has_its_method_and_media_type(server: Server, http: HttpClient) -> None:
    server.answers((200, {}, {}))
    obj = {"metadata": {"name": "c", "namespace": "ns"}}
    await http.create(CONFIG_MAP, obj)
    await http.replace(CONFIG_MAP, obj, subresource="status")
    await http.patch(CONFIG_MAP, "c", "ns", [{"op": "test"}], kind=PatchKind.JSON)
    await http.apply(CONFIG_MAP, obj, field_manager="me")
    await http.delete(CONFIG_MAP, "c", "ns", resource_version="5", propagation="Foreground")
    seen = [(method, path, headers["Content-Type"]) for method, path, _, headers in server.requests]
    base = "/api/v1/namespaces/ns/configmaps"
    assert seen == [
        ("POST", base, "application/json"),
        ("PUT", f"{base}/c/status", "application/json"),
        ("PATCH", f"{base}/c", "application/json-patch+json"),
        ("PATCH", f"{base}/c?fieldManager=me&force=true", "application/apply-patch+yaml"),
        ("DELETE", f"{base}/c", "application/json"),
    ]
    options = json.loads(server.requests[-1][2])
    assert options["preconditions"] == {"resourceVersion": "5"}
    assert options["propagationPolicy"] == "Foreground"


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (404, "NotFound", NotFound),
        (409, "Conflict", Conflict),
        (410, "Expired", Gone),
        (422, "Invalid", Invalid),
    ],
)
async def test_a_refusal_is_a_typed_error(
    server: Server, http: HttpClient, code: int, reason: str, kind: Any
) -> None:
    server.answers((code, status(code, reason, details={"name": "c"}), {}))
    with pytest.raises(kind) as caught:
        await http.get(CONFIG_MAP, "c", "ns")
    assert (caught.value.message, caught.value.details) == ("why", {"name": "c"})


async def test_an_error_that_is_no_status_keeps_its_text(server: Server, http: HttpClient) -> None:
    server.answers((503, "upstream is down", {}))
    with pytest.raises(ServiceUnavailable, match="upstream is down"):
        await http.get(CONFIG_MAP, "c", "ns")


async def test_a_throttled_request_waits_as_told_and_is_repeated(server: Server, http: HttpClient) -> None:
    busy = (429, status(429, "TooManyRequests"), {"Retry-After": "3"})
    server.answers(busy, busy, (200, {"ok": True}, {}))
    assert await http.create(CONFIG_MAP, {"metadata": {"name": "c", "namespace": "ns"}}) == {"ok": True}
    assert http.slept == [3.0, 3.0]
    assert len({body for _, _, body, _ in server.requests}) == 1


async def test_throttling_ends_in_an_error_after_a_number_of_retries(
    server: Server, http: HttpClient
) -> None:
    server.answers(
        (429, status(429, "TooManyRequests", details={"retryAfterSeconds": 1}), {"Retry-After": "1"})
    )
    with pytest.raises(TooManyRequests) as caught:
        await http.get(CONFIG_MAP, "c", "ns")
    assert len(server.requests) == MAX_RETRIES + 1
    assert caught.value.retry_after == 1.0


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "3600"}])
async def test_what_the_server_does_not_ask_to_repeat_soon_is_not_repeated(
    server: Server, http: HttpClient, headers: Any
) -> None:
    server.answers((429, status(429, "TooManyRequests"), headers))
    with pytest.raises(TooManyRequests):
        await http.get(CONFIG_MAP, "c", "ns")
    assert len(server.requests) == 1


async def test_credentials_are_read_again_when_refused_once(server: Server, tmp_path: Path) -> None:
    path = write_kubeconfig(tmp_path / "kubeconfig", server.url, {"token": "old"})

    async def handler(request: web.Request) -> web.StreamResponse:
        fresh = request.headers["Authorization"] == "Bearer new"
        return web.json_response(
            {"ok": True} if fresh else status(401, "Unauthorized"), status=200 if fresh else 401
        )

    server.handler = handler
    async with await load_client(path) as client:
        with pytest.raises(Unauthorized):
            await client.get(CONFIG_MAP, "c", "ns")
        assert len(server.requests) == 2
        write_kubeconfig(path, server.url, {"token": "new"})
        assert await client.get(CONFIG_MAP, "c", "ns") == {"ok": True}


def event_line(kind: str, name: str, version: str = "1", **more: Any) -> bytes:
    obj = {"kind": "ConfigMap", "metadata": {"name": name, "resourceVersion": version}, **more}
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


async def watch_all(http: HttpClient) -> list[tuple[str, str]]:
    async with aclosing(http.watch(CONFIG_MAP, "ns", resource_version="5", timeout_seconds=9)) as stream:
        return [(event.type, event.object["metadata"]["name"]) async for event in stream]


async def test_a_watch_puts_lines_together_however_they_arrive(server: Server, http: HttpClient) -> None:
    data = event_line("ADDED", "a") + event_line("MODIFIED", "b") + event_line("BOOKMARK", "")
    server.streams(*(data[n : n + 7] for n in range(0, len(data), 7)))
    assert await watch_all(http) == [("ADDED", "a"), ("MODIFIED", "b"), ("BOOKMARK", "")]
    path = server.requests[0][1]
    assert path.startswith(
        "/api/v1/namespaces/ns/configmaps?watch=true&allowWatchBookmarks=true&resourceVersion=5"
    )
    assert path.endswith("timeoutSeconds=9")


async def test_a_watch_event_may_be_larger_than_any_buffer(server: Server, http: HttpClient) -> None:
    line = event_line("ADDED", "big", data={"x": "y" * 6_000_000})
    server.streams(line + event_line("ADDED", "next"))
    assert await watch_all(http) == [("ADDED", "big"), ("ADDED", "next")]


@pytest.mark.parametrize("within", [True, False])
async def test_a_watch_that_is_too_old_is_gone(server: Server, http: HttpClient, within: Any) -> None:
    gone = status(410, "Expired")
    if within:
        server.streams(
            event_line("ADDED", "a"), json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n"
        )
    else:
        server.answers((410, gone, {}))
    with pytest.raises(Gone):
        await watch_all(http)


async def test_a_watch_that_breaks_off_within_an_event_is_a_transport_error(
    server: Server, http: HttpClient
) -> None:
    server.streams(event_line("ADDED", "a"), event_line("ADDED", "b")[:20])
    with pytest.raises(TransportError, match="within an event"):
        await watch_all(http)


async def test_leaving_a_watch_closes_its_connection(server: Server, http: HttpClient) -> None:
    closed = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(event_line("ADDED", "a"))
                await asyncio.sleep(0.01)
        except (ConnectionError, asyncio.CancelledError):
            closed.set()
            raise
        return response

    server.handler = handler
    async with aclosing(http.watch(CONFIG_MAP, "ns", resource_version="")) as stream:
        assert (await anext(stream)).type == "ADDED"
    async with asyncio.timeout(10):
        await closed.wait()


async def test_no_server_is_a_transport_error_that_names_it(tmp_path: Path) -> None:
    async with await load_client(write_kubeconfig(tmp_path / "k", "http://127.0.0.1:9")) as client:
        with pytest.raises(TransportError, match=r"127\.0\.0\.1:9"):
            await client.get(CONFIG_MAP, "c", "ns")


async def test_a_request_without_answer_times_out(server: Server, http: HttpClient) -> None:
    @asynccontextmanager
    async def hanging() -> AsyncIterator[None]:
        release = asyncio.Event()

        async def handler(_request: web.Request) -> web.StreamResponse:
            await release.wait()
            return web.json_response({})

        server.handler = handler
        yield
        release.set()

    http._timeout = type(http._timeout)(total=0.05)
    async with hanging():
        with pytest.raises(TransportError):
            await http.get(CONFIG_MAP, "c", "ns")


async def test_the_kubeconfig_of_the_environment_is_used(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "kubeconfig", server.url)))
    server.answers((200, {"ok": True}, {}))
    async with await load_client() as client:
        assert await client.get(CONFIG_MAP, "c", "ns") == {"ok": True}


async def test_an_unusable_kubeconfig_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing.*KUBECONFIG"):
        await load_client(tmp_path / "missing")


def test_importing_loads_no_model_classes_and_hides_none() -> None:
    code = (
        "import sys, controller.runtime as r\n"
        "assert not [m for m in sys.modules if m.startswith('kubernetes_asyncio')]\n"
        "import kubernetes_asyncio.client\n"
        "assert kubernetes_asyncio.client.V1Pod\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://api.example.com:6443", "http://secure.example.com:3128"),
        ("http://api.example.com", "http://plain.example.com:3128"),
        ("https://api.internal.example.com", None),
        ("https://10.0.0.1:6443", None),
    ],
)
def test_the_environment_names_the_proxy_and_who_needs_none(
    url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://secure.example.com:3128")
    monkeypatch.setenv("HTTP_PROXY", "http://plain.example.com:3128")
    monkeypatch.setenv("NO_PROXY", ".internal.example.com,10.0.0.1")
    assert environment_proxy(url) == proxy


async def test_a_proxy_of_the_environment_is_used(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("NO_PROXY", "")
    server.answers((200, {"metadata": {"name": "a"}}, {}))
    path = write_kubeconfig(tmp_path / "k", "http://api.example.com")
    async with await load_client(path) as client:
        await client.get(NAMESPACE, "a")
    ((_, target, _, headers),) = server.requests
    assert (target, headers["Host"]) == ("/api/v1/namespaces/a", "api.example.com")


class Expiring:
    """A right to write that runs out after so many looks at it."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    @property
    def remaining(self) -> float:
        self.looks -= 1
        return 60.0 if self.looks >= 0 else -1.0


async def test_a_right_that_ends_while_a_request_waits_keeps_its_body_from_the_server(
    server: Server, http: HttpClient
) -> None:
    server.answers((201, {"kind": "ConfigMap"}, {}))
    obj = {"metadata": {"name": "a", "namespace": "ns"}}
    await FencedClient(http, Expiring(1000)).create(CONFIG_MAP, obj)
    assert len(server.requests) == 1
    with pytest.raises(WriteRefusedError):
        await FencedClient(http, Expiring(2)).create(CONFIG_MAP, obj)
    assert len(server.requests) == 1


async def test_a_write_that_was_told_to_wait_is_not_repeated_without_the_right(server: Server) -> None:
    right = Expiring(1000)

    async def sleep(_seconds: float) -> None:
        right.looks = 0

    configuration = Configuration()
    configuration.host = server.url
    server.answers((429, {}, {"Retry-After": "1"}), (201, {}, {}))
    async with HttpClient(configuration, sleep=sleep) as client:
        with pytest.raises(WriteRefusedError):
            await FencedClient(client, right).delete(CONFIG_MAP, "a", "ns")
    assert len(server.requests) == 1

"""Pulling from a real web server that misbehaves in every way that web servers do."""

import asyncio
import base64
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from adapters.errors import (
    AdapterError,
    CorruptObjectError,
    ObjectNotFoundError,
    StorageConfigError,
    StorageDeniedError,
    StorageError,
    StorageUnavailableError,
)
from adapters.puller import ModelKey, Pulled, Puller, clients, download
from adapters.puller.settings import PullerSettings

pytestmark = pytest.mark.e2e

CONTENT = bytes(range(256)) * 8192  # 2 MiB
BODY = web.ResponseKey("body", bytes)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def announced(request: web.Request, **headers: str) -> web.StreamResponse:
    """An answer with CONTENT, or the range of it that was asked for, that is to be written."""
    start, end = 0, len(CONTENT)
    if asked := request.headers.get("Range"):
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last) + 1 if last else end, end)
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(CONTENT)}"
    response = web.StreamResponse(status=206 if asked else 200, headers=headers)
    response.content_length = end - start
    response[BODY] = CONTENT[start:end]
    return response


async def sent(request: web.Request, response: web.StreamResponse, size: int | None = None) -> Any:
    """Sends the answer; one of less than its `size` is cut."""
    await response.prepare(request)
    body = response[BODY]
    await response.write(body[:size])
    if size is not None and size < len(body):
        assert request.transport
        request.transport.close()
    return response


@dataclass
class Web:
    """A server on loopback; `handler` answers and `requests` remembers."""

    url: str = ""
    handler: Handler = field(default=None)  # type: ignore[assignment]
    requests: list[web.Request] = field(default_factory=list)

    def ranges(self) -> list[str]:
        """The ranges that were asked for, but the first look's."""
        return [
            asked
            for request in self.requests
            if (asked := request.headers.get("Range", "all")) != "bytes=0-0"
        ]


async def serving(context: ssl.SSLContext | None = None) -> tuple[Web, web.AppRunner]:
    served = Web()

    async def answer(request: web.Request) -> web.StreamResponse:
        served.requests.append(request)
        return await served.handler(request)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    served.url = f"{'https' if context else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    return served, runner


@pytest.fixture
async def server() -> AsyncIterator[Web]:
    served, runner = await serving()

    async def good(request: web.Request) -> web.StreamResponse:
        return await sent(request, announced(request, ETag='"v1"'))

    served.handler = good
    yield served
    await runner.cleanup()


@pytest.fixture
async def other() -> AsyncIterator[Web]:
    served, runner = await serving()
    yield served
    await runner.cleanup()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(download, "_LONGEST_PAUSE_S", 0.01)


@pytest.fixture
def puller(tmp_path: Path) -> Puller:
    (tmp_path / "models").mkdir()
    (tmp_path / "secret").mkdir()
    settings = PullerSettings(root=tmp_path / "models", secret=tmp_path / "secret", cache_bytes=1 << 30)
    return Puller(settings, key_patience_s=0)


async def pull(puller: Puller, server: Web, path: str = "m.bin", query: str = "", **entry: Any) -> Pulled:
    secret = puller._secret / "web"
    secret.write_text(json.dumps({"type": "http", "url": f"{server.url}{query}"} | entry))
    return await puller.pull("m", path, ModelKey(storage_key="web"))


def left(puller: Puller) -> list[Path]:
    return [path for path in puller._root.rglob("*") if path.is_file()]


async def test_a_file_is_pulled_with_its_query_and_headers(puller: Puller, server: Web) -> None:
    pulled = await pull(
        puller,
        server,
        "a%20dir/m é.bin",
        "/base?sig=a%2Fb%3D&x=1",
        headers={"X-Token": "t", "X-Many": ["a", "b"]},
    )
    assert pulled.path.read_bytes() == CONTENT
    assert pulled.path.name == "m é.bin"
    for request in server.requests:
        assert request.raw_path == "/base/a%20dir/m%20%C3%A9.bin?sig=a%2Fb%3D&x=1"
        assert request.headers["X-Token"] == "t"
        assert request.headers.getall("X-Many") == ["a", "b"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, ObjectNotFoundError),
        (410, ObjectNotFoundError),
        (401, StorageDeniedError),
        (403, StorageDeniedError),
        (400, StorageConfigError),
        (500, StorageUnavailableError),
        (503, StorageUnavailableError),
    ],
)
async def test_an_error_page_is_never_a_model(
    puller: Puller, server: Web, status: int, kind: type[AdapterError]
) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:  # noqa: ARG001
        return web.Response(status=status, text="<h1>sorry</h1>")

    server.handler = refuse
    with pytest.raises(kind, match=str(status)):
        await pull(puller, server, query="?secret=signature")
    assert left(puller) == []


async def test_the_querys_signature_is_in_no_message(puller: Puller, server: Web) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:  # noqa: ARG001
        return web.Response(status=403)

    server.handler = refuse
    with pytest.raises(StorageDeniedError) as raised:
        await pull(puller, server, query="?secret=signature")
    assert "signature" not in str(raised.value)


async def test_a_server_that_is_overloaded_for_a_while_is_asked_again(puller: Puller, server: Web) -> None:
    good, statuses = server.handler, iter([503, 429, 200, 503, 502])

    async def moody(request: web.Request) -> web.StreamResponse:
        status = next(statuses, 200)
        return web.Response(status=status) if status != 200 else await good(request)

    server.handler = moody
    assert (await pull(puller, server)).path.read_bytes() == CONTENT


async def test_a_cut_download_goes_on_where_it_ended_in_the_same_version(puller: Puller, server: Web) -> None:
    cuts = iter([1_000_000, 500_000])

    async def cut(request: web.Request) -> web.StreamResponse:
        response = announced(request, ETag='"v1"')
        return await sent(request, response, None if len(response[BODY]) == 1 else next(cuts, None))

    server.handler = cut
    assert (await pull(puller, server)).path.read_bytes() == CONTENT
    first, *later = server.ranges()
    assert first == "all"
    assert len(later) == 2
    assert all(asked.startswith("bytes=") and not asked.startswith("bytes=0-") for asked in later)
    assert all(
        request.headers["If-Match"] == '"v1"'
        for request in server.requests
        if request.headers.get("Range") != "bytes=0-0"
    )


async def test_a_cut_download_without_a_version_begins_again(puller: Puller, server: Web) -> None:
    cuts = iter([1_000_000])

    async def cut(request: web.Request) -> web.StreamResponse:
        response = announced(request)
        return await sent(request, response, None if len(response[BODY]) == 1 else next(cuts, None))

    server.handler = cut
    assert (await pull(puller, server)).path.read_bytes() == CONTENT
    assert server.ranges() == ["all", "all"]


async def test_a_server_without_ranges_will_do(puller: Puller, server: Web) -> None:
    cuts = iter([1, 1_000_000])  # the first look is broken off by us

    async def plain(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"ETag": '"v1"'})
        response.content_length = len(CONTENT)
        response[BODY] = CONTENT
        return await sent(request, response, next(cuts, None))

    server.handler = plain
    assert (await pull(puller, server)).path.read_bytes() == CONTENT


async def test_a_file_without_a_length_is_pulled(puller: Puller, server: Web) -> None:
    async def chunked(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(CONTENT)
        return response

    server.handler = chunked
    assert (await pull(puller, server)).path.read_bytes() == CONTENT


async def test_less_than_was_announced_is_no_model(puller: Puller, server: Web) -> None:
    async def short(request: web.Request) -> web.StreamResponse:
        return await sent(request, announced(request), 1000)

    server.handler = short
    with pytest.raises(StorageUnavailableError, match=r"m\.bin"):
        await pull(puller, server)
    assert left(puller) == []


async def test_silence_ends_a_download(puller: Puller, server: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "SILENCE_TIMEOUT_S", 0.05)
    gate = asyncio.Event()

    async def stall(request: web.Request) -> web.StreamResponse:
        response = announced(request, ETag='"v1"')
        await response.prepare(request)
        await response.write(response[BODY][:100])
        if len(response[BODY]) > 1:
            await gate.wait()
        return response

    server.handler = stall
    try:
        with pytest.raises(StorageUnavailableError):
            await pull(puller, server)
    finally:
        gate.set()
    assert left(puller) == []


async def test_a_cancelled_pull_leaves_nothing(puller: Puller, server: Web) -> None:
    gate, reached = asyncio.Event(), asyncio.Event()

    async def stall(request: web.Request) -> web.StreamResponse:
        response = announced(request, ETag='"v1"')
        await response.prepare(request)
        await response.write(response[BODY][:1_000_000])
        if len(response[BODY]) > 1:
            reached.set()
            await gate.wait()
        return response

    server.handler = stall
    task = asyncio.create_task(pull(puller, server))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    assert left(puller) == []


async def test_a_file_that_is_replaced_meanwhile_is_not_mixed(puller: Puller, server: Web) -> None:
    versions = iter(['"v1"', '"v1"'])

    async def changing(request: web.Request) -> web.StreamResponse:
        version = next(versions, '"v2"')
        response = announced(request, ETag=version)
        whole = len(response[BODY]) == 1
        return await sent(request, response, None if whole or version == '"v2"' else 1_000_000)

    server.handler = changing
    with pytest.raises(StorageError, match="was replaced during the pull"):
        await pull(puller, server)
    assert left(puller) == []


def digests(content: bytes) -> list[dict[str, str]]:
    sha = base64.b64encode(hashlib.sha256(content).digest()).decode()
    md5 = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
    return [{"Repr-Digest": f"sha-256=:{sha}:"}, {"Digest": f"SHA-256={sha}"}, {"Content-MD5": md5}]


@pytest.mark.parametrize("headers", digests(CONTENT))
async def test_a_checksum_that_fits_is_fine(puller: Puller, server: Web, headers: dict[str, str]) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return await sent(request, announced(request, ETag='"v1"', **headers))

    server.handler = answer
    assert (await pull(puller, server)).path.read_bytes() == CONTENT


@pytest.mark.parametrize("headers", digests(b"other"))
async def test_a_checksum_that_does_not_fit_is_an_error(
    puller: Puller, server: Web, headers: dict[str, str]
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return await sent(request, announced(request, ETag='"v1"', **headers))

    server.handler = answer
    with pytest.raises(CorruptObjectError, match=r"m\.bin is corrupt"):
        await pull(puller, server)
    assert left(puller) == []


async def test_redirects_are_followed_and_secrets_stay_at_home(
    puller: Puller, server: Web, other: Web
) -> None:
    good = server.handler

    async def redirect(request: web.Request) -> web.StreamResponse:
        if request.path == "/m.bin":
            return web.Response(status=302, headers={"Location": "/here?sig=%2F"})
        return web.Response(status=307, headers={"Location": f"{other.url}/there"})

    server.handler, other.handler = redirect, good
    pulled = await pull(puller, server, headers={"Authorization": "Bearer t"})
    assert pulled.path.read_bytes() == CONTENT
    assert {(request.raw_path, request.headers["Authorization"]) for request in server.requests} == {
        ("/m.bin", "Bearer t"),
        ("/here?sig=%2F", "Bearer t"),
    }
    assert all("Authorization" not in request.headers for request in other.requests)


async def test_redirects_in_a_circle_end(puller: Puller, server: Web) -> None:
    async def circle(request: web.Request) -> web.StreamResponse:  # noqa: ARG001
        return web.Response(status=301, headers={"Location": "/again"})

    server.handler = circle
    with pytest.raises(StorageConfigError, match="redirected more than 5 times"):
        await pull(puller, server)


async def test_an_unchanged_file_is_not_downloaded_again(puller: Puller, server: Web) -> None:
    await pull(puller, server)
    puller.remove("m")
    assert (await pull(puller, server)).path.read_bytes() == CONTENT
    assert server.ranges() == ["all"]

    async def changed(request: web.Request) -> web.StreamResponse:
        return await sent(request, announced(request, ETag='"v2"'))

    server.handler = changed
    await pull(puller, server)
    assert server.ranges() == ["all", "all"]


async def test_an_empty_file_is_a_file(puller: Puller, server: Web) -> None:
    async def empty(request: web.Request) -> web.StreamResponse:
        if "Range" in request.headers:
            return web.Response(status=416, headers={"Content-Range": "bytes */0"})
        return web.Response(body=b"")

    server.handler = empty
    assert (await pull(puller, server)).path.read_bytes() == b""


async def test_client_certificates_and_a_private_authority(puller: Puller) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server, runner = await serving(context)

    async def good(request: web.Request) -> web.StreamResponse:
        return await sent(request, announced(request, ETag='"v1"'))

    server.handler = good
    client = authority.issue_cert("client")
    certificate = authority.cert_pem.bytes().decode()
    chain = "".join(blob.bytes().decode() for blob in client.cert_chain_pems)
    key = client.private_key_pem.bytes().decode()
    try:
        pulled = await pull(puller, server, certificate=certificate, client_certificate=chain, client_key=key)
        assert pulled.path.read_bytes() == CONTENT
        with pytest.raises(StorageConfigError, match="certificate verify failed"):
            await pull(puller, server)
        with pytest.raises(StorageUnavailableError):
            await pull(puller, server, certificate=certificate)
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"certificate": "no PEM"}, "is no PEM"),
        ({"client_certificate": "x"}, "lack client_key"),
        ({"client_certificate": "x", "client_key": "y"}, "is no PEM"),
        ({"headers": "X: y"}, "headers must be an object"),
        ({"headers": {"X": 1}}, "headers must be texts"),
        ({"headers": {"X": "a\r\nY: b"}}, "one line"),
        ({"url": "ftp://example.com"}, "no http or https URL"),
        ({"url": "https://u:p@example.com"}, "without user and password"),
    ],
)
async def test_settings_that_cannot_be_used_are_named(
    puller: Puller, server: Web, entry: dict[str, Any], message: str
) -> None:
    with pytest.raises(StorageConfigError, match=message):
        await pull(puller, server, **entry)

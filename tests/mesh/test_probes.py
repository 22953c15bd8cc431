"""The small HTTP server answers what kubelet and Prometheus ask, and survives everything else."""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus

import httpx
import pytest

from mesh.probes import HttpPages


async def page() -> tuple[HTTPStatus, str]:
    return HTTPStatus.OK, "fine\n"


@pytest.fixture
async def pages() -> AsyncIterator[HttpPages]:
    server = HttpPages("127.0.0.1", 0, {"/ready": page})
    await server.start()
    yield server
    await server.stop()


async def raw(pages: HttpPages, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", pages.port)
    writer.write(request)
    if not request.endswith(b"\r\n\r\n"):
        writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


async def test_pages(pages: HttpPages) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{pages.port}") as client:
        answer = await client.get("/ready?verbose")
        assert (answer.status_code, answer.text) == (200, "fine\n")
        assert (await client.get("/other")).status_code == 404
        assert (await client.post("/ready")).status_code == 405
        head = await client.head("/ready")
        assert (head.status_code, head.headers["content-length"], head.text) == (200, "5", "")


@pytest.mark.parametrize("request_", [b"", b"GET /ready", b"x" * 40_000, b"\x16\x03\x01\r\n\r\n"])
async def test_nonsense_does_no_harm(pages: HttpPages, request_: bytes) -> None:
    try:
        answer = await raw(pages, request_)
    except ConnectionError:
        answer = b""
    assert answer == b"" or b" 405 " in answer
    assert b" 200 " in await raw(pages, b"GET /ready HTTP/1.0\r\n\r\n")


async def test_a_taken_port_is_named(pages: HttpPages) -> None:
    with pytest.raises(OSError, match=str(pages.port)):
        await HttpPages("127.0.0.1", pages.port, {}).start()

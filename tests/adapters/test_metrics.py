import asyncio
import contextlib
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc import aio

from adapters.errors import ConfigurationError, ServerError
from adapters.sdk.follow import State
from adapters.sdk.observed import observed


def sample(text: str, name: str) -> float:
    return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} ")), 0.0)


async def test_loads_are_counted_by_their_code(
    run_adapter: Any, fake_type: Any, tmp_path: Path, unused_tcp_port: int
) -> None:
    async with (
        run_adapter(fake_type, tmp_path, ADAPTER_METRICS_PORT=unused_tcp_port) as adapter,
        httpx.AsyncClient() as client,
    ):

        async def read() -> str:
            return (await client.get(f"http://127.0.0.1:{unused_tcp_port}/metrics")).text

        await adapter.mesh.ready()
        before = await read()
        await adapter.mesh.load("good")
        adapter.server.refusals["bad"] = ServerError(grpc.StatusCode.INVALID_ARGUMENT, "no")
        with pytest.raises(aio.AioRpcError):
            await adapter.mesh.load("bad")
        after = await read()
    for name in ('modelmesh_adapter_loads_total{code="OK"}', "modelmesh_adapter_load_seconds_count"):
        assert sample(after, name) == sample(before, name) + 1
    refused = 'modelmesh_adapter_loads_total{code="INVALID_ARGUMENT"}'
    assert sample(after, refused) == sample(before, refused) + 1
    assert sample(after, "modelmesh_adapter_models") == 1


async def test_a_taken_metrics_port_is_named(run_adapter: Any, fake_type: Any, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"cannot serve metrics on \\*:{port}: "):
            async with run_adapter(fake_type, tmp_path, ADAPTER_METRICS_PORT=port):
                pass


async def test_probes_tell_a_living_adapter_from_a_usable_server(
    run_adapter: Any, fake_type: Any, tmp_path: Path, unused_tcp_port: int
) -> None:
    async with (
        run_adapter(fake_type, tmp_path, ADAPTER_METRICS_PORT=unused_tcp_port) as adapter,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{unused_tcp_port}") as client,
    ):

        async def probes() -> tuple[int, int, str]:
            live, ready = await client.get("/healthz"), await client.get("/readyz")
            return live.status_code, ready.status_code, ready.text.strip()

        await adapter.mesh.ready()
        assert await probes() == (200, 200, "READY")
        adapter.server.die()
        async with asyncio.timeout(10):
            while await probes() != (200, 503, "STARTING"):  # noqa: ASYNC110 - what another process asks
                await asyncio.sleep(0.01)
        adapter.server.come_back()
        await adapter.mesh.ready()
        assert await probes() == (200, 200, "READY")


async def test_probes_come_from_outside_of_the_pod(
    run_adapter: Any, fake_type: Any, tmp_path: Path, unused_tcp_port: int
) -> None:
    others = {"127.0.0.2", socket.gethostbyname(socket.gethostname())}
    async with (
        run_adapter(fake_type, tmp_path, ADAPTER_METRICS_PORT=unused_tcp_port),
        httpx.AsyncClient() as client,
    ):
        for address in others:
            async with asyncio.timeout(10):
                while True:
                    with contextlib.suppress(httpx.ConnectError):
                        assert (await client.get(f"http://{address}:{unused_tcp_port}/healthz")).is_success
                        break
                    await asyncio.sleep(0.01)


async def test_local_mode_keeps_the_port_to_this_machine(
    run_adapter: Any, fake_type: Any, tmp_path: Path, unused_tcp_port: int
) -> None:
    variables = {"ADAPTER_METRICS_PORT": unused_tcp_port, "MODELMESH_BIND_ADDRESS": "127.0.0.1"}
    async with run_adapter(fake_type, tmp_path, **variables) as adapter, httpx.AsyncClient() as client:
        await adapter.mesh.ready()
        assert (await client.get(f"http://127.0.0.1:{unused_tcp_port}/healthz")).is_success
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://127.0.0.2:{unused_tcp_port}/healthz")


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"GET /healthz?verbose HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200 OK\r\n"),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 Not Found\r\n"),
        (b"POST /healthz HTTP/1.1\r\n\r\n", b"HTTP/1.1 405 Method Not Allowed\r\n"),
        (b"nonsense\r\n\r\n", b""),
        (b"GET /\xff HTTP/1.1\r\n\r\n", b""),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 20_000, b""),
    ],
    ids=["query", "path", "method", "no HTTP", "no ASCII", "too long"],
)
async def test_whatever_a_client_says_the_port_goes_on_answering(
    request_: bytes, answer: bytes, unused_tcp_port: int
) -> None:
    async with observed("127.0.0.1", unused_tcp_port, lambda: State.READY), httpx.AsyncClient() as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", unused_tcp_port)
        writer.write(request_)
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionResetError):  # what it had not read when it hung up
                assert (await reader.read()).startswith(answer)
        writer.close()
        assert (await client.get(f"http://127.0.0.1:{unused_tcp_port}/healthz")).text == "ok\n"
        head = await client.head(f"http://127.0.0.1:{unused_tcp_port}/metrics")
        assert (head.status_code, head.content) == (200, b"")


def test_health_costs_an_adapter_no_web_framework(unused_tcp_port: int) -> None:
    code = """
import asyncio, sys, adapters.triton
from adapters.sdk.observed import observed

async def run():
    async with observed("127.0.0.1", int(sys.argv[1]), lambda: None):
        return "aiohttp" in sys.modules

sys.exit(asyncio.run(run()))
"""
    command = [sys.executable, "-c", code, str(unused_tcp_port)]
    assert subprocess.run(command, check=False).returncode == 0

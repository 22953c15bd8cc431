"""What only a real etcd can show: outages, several endpoints, users, TLS."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from store.base import Event, Put
from store.connection import EtcdConnection, connect
from store.errors import HistoryLostError, StoreAuthError, StoreUnavailableError
from store.etcd import CALL_TIMEOUT_SECONDS, EtcdStore, Tls
from tests.store.etcd_server import EtcdServer, etcd_server, free_port

pytestmark = pytest.mark.e2e


@asynccontextmanager
async def opened(connection: EtcdConnection) -> AsyncIterator[EtcdStore]:
    store = await connect(connection)
    try:
        yield store
    finally:
        await store.close()


def certify(key: Path, certificate: Path) -> None:
    """Makes a self-signed certificate for etcd.example."""
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=etcd.example",
    ]
    names = ["-addext", "subjectAltName=DNS:etcd.example", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names], check=True, capture_output=True)


async def next_event(store: EtcdStore, prefix: str, revision: int) -> Event:
    async for events in store.watch(prefix, revision=revision):
        for event in events.events:
            return event
    raise AssertionError("the watch ended")


async def test_nobody_there_is_said_within_seconds() -> None:
    with pytest.raises(StoreUnavailableError, match="etcd at"):
        await connect(EtcdConnection((f"127.0.0.1:{free_port()}",)))


async def test_a_dead_endpoint_is_passed_over(etcd: EtcdServer) -> None:
    async with opened(EtcdConnection((f"127.0.0.1:{free_port()}", etcd.endpoint), "/dead")) as store:
        assert (await store.txn([], [Put("/a", b"1")])).succeeded


async def test_an_endpoint_that_hangs_is_passed_over(etcd: EtcdServer, tmp_path: Path) -> None:
    with etcd_server(tmp_path) as other:
        endpoints = (other.endpoint, etcd.endpoint)
        async with opened(EtcdConnection(endpoints, "/hang")) as store:
            other.pause()
            started = time.monotonic()
            assert (await store.txn([], [Put("/a", b"1")])).succeeded
            assert time.monotonic() - started < CALL_TIMEOUT_SECONDS
            assert await store.get("/a") is not None
    async with opened(EtcdConnection((etcd.endpoint,), "/hang")) as store:
        assert await store.get("/a") is not None, "it was written at the endpoint that answers"


async def test_a_single_endpoint_that_hangs_is_unavailable_and_serves_again_later(tmp_path: Path) -> None:
    with etcd_server(tmp_path) as server:
        async with opened(EtcdConnection((server.endpoint,))) as store:
            server.pause()
            with pytest.raises(StoreUnavailableError):
                await store.get("/a")
            server.resume()
            assert await store.get("/a") is None


async def test_a_range_that_is_compacted_while_it_is_read_is_read_again(
    etcd: EtcdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.etcd.PAGE_KEYS", 2)
    async with opened(EtcdConnection((etcd.endpoint,), "/compacted")) as store:
        for number in range(5):
            await store.txn([], [Put(f"/p/{number}", b"old")])
        pages = 0
        call = store._call

        async def counted(method: Any, *stub: Any) -> Any:
            nonlocal pages
            pages += 1
            if pages == 2:
                store._call = call  # type: ignore[method-assign]
                await store.txn([], [Put("/p/4", b"new")])
                await asyncio.to_thread(etcd.compact)
            return await call(method, *stub)

        store._call = counted  # type: ignore[method-assign]
        items = (await store.range("/p/")).items
        assert [kv.value for kv in items] == [b"old"] * 4 + [b"new"]


async def test_a_watch_survives_a_restart_of_etcd(tmp_path: Path) -> None:
    with etcd_server(tmp_path) as server:
        async with opened(EtcdConnection((server.endpoint,))) as store:
            start = (await store.txn([], [Put("/a", b"1")])).revision
            watching = asyncio.create_task(next_event(store, "/", start))
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            await store.txn([], [Put("/a", b"2")])
            assert (await asyncio.wait_for(watching, 20)).value == b"2"


async def test_a_watch_of_a_wiped_etcd_says_so(tmp_path: Path) -> None:
    with etcd_server(tmp_path) as server:
        async with opened(EtcdConnection((server.endpoint,))) as store:
            start = (await store.txn([], [Put("/a", b"1")])).revision
            watching = asyncio.create_task(next_event(store, "/", start))
            await asyncio.to_thread(server.stop)
            server.wipe()
            await asyncio.to_thread(server.start)
            with pytest.raises(HistoryLostError):
                await asyncio.wait_for(watching, 20)


async def test_user_and_password(tmp_path: Path) -> None:
    with etcd_server(tmp_path, "--auth-token-ttl=1") as server:
        for command in ("user add root:secret", "user grant-role root root", "auth enable"):
            await asyncio.to_thread(server.control, *command.split())
        async with opened(EtcdConnection((server.endpoint,), user="root", password="secret")) as store:
            assert (await store.txn([], [Put("/a", b"1")])).succeeded
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            assert await store.get("/a") is not None
            await asyncio.to_thread(server.control, "--user=root:secret", *["user", "add", "other:secret"])
            assert await store.get("/a") is not None, "every change of users makes tokens old"
        with pytest.raises(StoreAuthError):
            await connect(EtcdConnection((server.endpoint,), user="root", password="wrong"))
        with pytest.raises(StoreAuthError):
            await connect(EtcdConnection((server.endpoint,)))


async def test_tls_with_client_certificates_and_another_authority(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    await asyncio.to_thread(certify, key, certificate)
    files = (f"--cert-file={certificate}", f"--key-file={key}", f"--trusted-ca-file={certificate}")
    with etcd_server(tmp_path, *files, "--client-cert-auth", scheme="https") as server:
        tls = Tls(certificate.read_bytes(), key.read_bytes(), certificate.read_bytes())
        async with opened(EtcdConnection((server.endpoint,), tls=tls, authority="etcd.example")) as store:
            assert (await store.txn([], [Put("/a", b"1")])).succeeded
        with pytest.raises(StoreUnavailableError):
            await connect(EtcdConnection((server.endpoint,), tls=Tls(tls.root), authority="etcd.example"))

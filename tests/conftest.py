"""A real API server for whoever asks for it; started once, for all tests of a session."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from api.core import NAMESPACE
from controller.runtime.testing import KubeApiServer, install_definitions
from hack import kube_apiserver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from controller.runtime import HttpClient

ROOT = Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "kube_server: asks for that fixture while it runs")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Builds the server before the first test, whose time limit is not for that."""
    if any(
        "kube_server" in getattr(item, "fixturenames", ()) or item.get_closest_marker("kube_server")
        for item in session.items
    ):
        kube_apiserver.binaries()


async def _start(server: KubeApiServer) -> None:
    await server.start()
    files = sorted((ROOT / "config" / "crd").glob("*.yaml"))
    async with await server.client() as client:
        await install_definitions(
            client, [yaml.load(path.read_text(), Loader=yaml.CSafeLoader) for path in files]
        )


@pytest.fixture(scope="session")
def kube_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApiServer]:
    """etcd and kube-apiserver with the definitions of config/crd; shared, so it stays up for the others."""
    server = KubeApiServer(tmp_path_factory.mktemp("kube"), kube_apiserver.binaries())
    try:
        asyncio.run(_start(server))
        yield server
    finally:
        asyncio.run(server.stop())


@pytest.fixture
async def kube_client(kube_server: KubeApiServer) -> AsyncIterator[HttpClient]:
    """The administrator's client."""
    async with await kube_server.client() as client:
        yield client


@pytest.fixture
async def kube_namespace(kube_client: HttpClient) -> str:
    """A new namespace of the real server; what is in it at the end stays."""
    name = f"test-{secrets.token_hex(4)}"
    await kube_client.create(NAMESPACE, {"metadata": {"name": name}})
    return name

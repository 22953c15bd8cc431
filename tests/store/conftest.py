from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import pytest

from store.base import Store
from store.etcd import EtcdStore
from store.memory import MemoryBackend, MemoryStore
from tests.store.etcd_server import EtcdServer, etcd_server


@dataclass
class Backend:
    """What a test of the interface needs of a store: clients, and trouble."""

    client: Callable[..., Store]
    compact: Callable[[], None]


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with etcd_server(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture(params=["memory", pytest.param("etcd", marks=pytest.mark.e2e)])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    """The same promises on both implementations."""
    opened: list[Store] = []
    root = f"/{request.node.name}"
    if request.param == "memory":
        memory = MemoryBackend()

        def client(root_prefix: str = root) -> Store:
            opened.append(MemoryStore(memory, root_prefix=root_prefix))
            return opened[-1]

        yield Backend(client, memory.compact)
    else:
        server: EtcdServer = request.getfixturevalue("etcd")

        def client(root_prefix: str = root) -> Store:
            opened.append(EtcdStore([server.endpoint], root_prefix=root_prefix))
            return opened[-1]

        yield Backend(client, server.compact)
    for store in opened:
        await store.close()


@pytest.fixture
def store(backend: Backend) -> Store:
    return backend.client()

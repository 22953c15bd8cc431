import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from api.proto import model_mesh_pb2_grpc
from mesh import runtime as spi
from mesh.config import Config, read_config
from mesh.constraints import RpcRules, TypeConstraints
from mesh.native import NativeBytePath
from mesh.node import MeshNode, Settings, epoch_ms
from mesh.runtime import Runtime
from store.memory import MemoryBackend, MemoryStore
from tests.mesh.fake_bytes import FakeBytes
from tests.mesh.fake_runtime import FakeRuntime
from tests.store.etcd_server import free_port
from tests.store.waiting import until


class Clock:
    """The wall clock, which a test can put forward, and stop where what it does must take no time."""

    def __init__(self) -> None:
        self.ahead_ms = 0
        self._stopped: tuple[int, float] | None = None

    def __call__(self) -> int:
        return (self._stopped[0] if self._stopped else epoch_ms()) + self.ahead_ms

    def monotonic(self) -> float:
        return (self._stopped[1] if self._stopped else time.monotonic()) + self.ahead_ms / 1000

    def stop(self) -> None:
        """From now on only `ahead_ms` moves it."""
        self._stopped = (epoch_ms(), time.monotonic())


def config(instance_id: str, runtime_port: int, **environment: str) -> Config:
    values = {
        "MM_SERVICE_NAME": "modelmesh-serving",
        "KV_STORE": "etcd:unused:1",
        "WKUBE_POD_NAME": instance_id,
        "WKUBE_POD_IPADDR": "127.0.0.1",
        "INTERNAL_GRPC_PORT": str(runtime_port),
        "MM_BIND_ADDRESS": "127.0.0.1",
        "MM_SVC_GRPC_PORT": str(free_port()),
        "MM_SVC_REST_PORT": "0",
        "MM_PEER_PORT": str(free_port()),
        "MM_DEFAULT_VMODEL_OWNER": "ksp",
    }
    return read_config(values | environment)


@dataclass
class Instance:
    """A node with a fake model server, whose byte path has real calls and a fake routing table."""

    node: MeshNode
    runtime: FakeRuntime
    bytes: FakeBytes
    address: str
    api: Any
    channel: Any
    port: int

    async def stop(self) -> None:
        await self.node.leave()
        await self.node.stop(0)


@dataclass
class Mesh:
    """Several instances on one in-process store. `add` starts another."""

    stack: AsyncExitStack
    store: MemoryBackend = field(default_factory=MemoryBackend)
    clock: Clock = field(default_factory=Clock)
    constraints: TypeConstraints = field(default_factory=TypeConstraints)
    instances: dict[str, Instance] = field(default_factory=dict)

    async def add(
        self, name: str = "one", runtime: FakeRuntime | None = None, **environment: str
    ) -> Instance:
        runtime = runtime or FakeRuntime()
        instance = await self.stack.enter_async_context(self._instance(name, runtime, environment))
        self.instances[name] = instance
        if runtime.status == 1:
            await until(
                lambda: all(name in other.node.registry.instances for other in self.instances.values())
            )
            await until(lambda: _sees_ready(self.instances.values(), name))
        return instance

    @asynccontextmanager
    async def _instance(
        self, name: str, runtime: FakeRuntime, environment: dict[str, str]
    ) -> AsyncIterator[Instance]:
        await runtime.start()
        settings = config(name, runtime.port, **environment)
        target = f"tcp:127.0.0.1:{runtime.port}"
        byte_path = FakeBytes(settings.instance_id, NativeBytePath(settings))
        node = MeshNode(
            settings,
            MemoryStore(self.store),
            Runtime(target, target, byte_path),
            byte_path,
            Settings(self.constraints, RpcRules()),
            now=self.clock,
            monotonic=self.clock.monotonic,
        )
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{settings.grpc_port}")
        running: asyncio.Task[None] | None = None
        try:
            await node.start()
            running = asyncio.create_task(node.run())
            yield Instance(
                node,
                runtime,
                byte_path,
                f"127.0.0.1:{settings.peer_port}",
                model_mesh_pb2_grpc.ModelMeshStub(channel),
                channel,
                settings.grpc_port,
            )
            assert not running.done() or running.cancelled(), running
            assert runtime.violations == []
        finally:
            if running:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await node.stop(0)
            await byte_path.stop(0)
            await channel.close()
            await runtime.stop()


def _sees_ready(instances: Any, name: str) -> bool:
    return all(
        (row := instance.node.registry.instances.get(name)) and row.value.ready for instance in instances
    )


@pytest.fixture
async def mesh(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Mesh]:
    # A busy machine may take longer than a product should wait.
    monkeypatch.setattr(spi, "PREDICT_TIMEOUT_SECONDS", 10.0)
    async with AsyncExitStack() as stack:
        yield Mesh(stack)

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from api.proto import mesh_peer_pb2_grpc, model_mesh_pb2_grpc
from mesh.config import Config, read_config
from mesh.constraints import RpcRules, TypeConstraints
from mesh.legacy import LegacyHandler
from mesh.management import HealthHandler, ModelMeshServicer, ModelReadyHandler
from mesh.node import MeshNode, Settings, epoch_ms
from mesh.peer import PeerServicer
from mesh.runtime import Runtime
from store.memory import MemoryBackend, MemoryStore
from tests.mesh.fake_bytes import FakeBytes
from tests.mesh.fake_runtime import FakeRuntime
from tests.store.waiting import until


class Clock:
    """The wall clock, which a test can put forward."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return epoch_ms() + self.ahead_ms

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_ms / 1000


def config(instance_id: str, runtime_port: int, peer_port: int = 0, **environment: str) -> Config:
    values = {
        "MM_SERVICE_NAME": "modelmesh-serving",
        "KV_STORE": "etcd:unused:1",
        "WKUBE_POD_NAME": instance_id,
        "WKUBE_POD_IPADDR": "127.0.0.1",
        "INTERNAL_GRPC_PORT": str(runtime_port),
        "MM_PEER_PORT": str(peer_port),
        "MM_DEFAULT_VMODEL_OWNER": "ksp",
    }
    return read_config(values | environment)


@dataclass
class Instance:
    """A node with a fake model server, a fake byte path and its real gRPC services."""

    node: MeshNode
    runtime: FakeRuntime
    bytes: FakeBytes
    address: str
    api: Any
    channel: Any

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
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        port = server.add_insecure_port("127.0.0.1:0")
        settings = config(name, runtime.port, port, **environment)
        target = f"tcp:127.0.0.1:{runtime.port}"
        made: list[FakeBytes] = []

        def byte_path(on_miss: Callable[[Any], None]) -> FakeBytes:
            made.append(FakeBytes(settings.instance_id, on_miss))
            return made[0]

        node = MeshNode(
            settings,
            MemoryStore(self.store),
            Runtime(target, target),
            byte_path,
            Settings(self.constraints, RpcRules()),
            now=self.clock,
            monotonic=self.clock.monotonic,
        )

        mesh_peer_pb2_grpc.add_PeerServicer_to_server(PeerServicer(node.load_for_peer), server)
        management = ModelMeshServicer(node.models, node.vmodels, node.status)
        model_mesh_pb2_grpc.add_ModelMeshServicer_to_server(management, server)
        server.add_generic_rpc_handlers(
            (
                HealthHandler(lambda: bool(node.readiness)),
                ModelReadyHandler(node.models, node.vmodels, node.status),
                LegacyHandler(management),
            )
        )
        await server.start()
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        running: asyncio.Task[None] | None = None
        try:
            await node.start()
            running = asyncio.create_task(node.run())
            yield Instance(
                node,
                runtime,
                made[0],
                f"127.0.0.1:{port}",
                model_mesh_pb2_grpc.ModelMeshStub(channel),
                channel,
            )
            assert not running.done() or running.cancelled(), running
            assert runtime.violations == []
        finally:
            if running:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await node.stop(0)
            await channel.close()
            await server.stop(0)
            await runtime.stop()
            settings.policy_socket.parent.rmdir()


def _sees_ready(instances: Any, name: str) -> bool:
    return all(
        (row := instance.node.registry.instances.get(name)) and row.value.ready for instance in instances
    )


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    async with AsyncExitStack() as stack:
        yield Mesh(stack)

"""Instances and their surroundings, started for tests and ended after them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from modelmesh_dataplane import Dataplane, Miss

from api.proto import kfs_inference_v2_pb2_grpc as v2_grpc
from api.proto import model_mesh_pb2_grpc as mmesh_grpc
from tests.dataplane.harness import V2_METHODS, V2_RPCS, Instance, Policy, RuntimeProcess, Start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


@pytest.fixture(scope="session")
def runtime_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuntimeProcess]:
    process = RuntimeProcess(tmp_path_factory.mktemp("runtime") / "s")
    yield process
    process.kill()


@pytest.fixture
async def start(
    tmp_path_factory: pytest.TempPathFactory, runtime_process: RuntimeProcess
) -> AsyncIterator[Start]:
    """Starts instances; `on_miss` answers a miss on the event loop."""
    running: list[Instance] = []
    target = f"unix:{tmp_path_factory.mktemp('policy') / 's'}"
    server = grpc.aio.server()
    policy = Policy()
    mmesh_grpc.add_ModelMeshServicer_to_server(policy, server)
    v2_grpc.add_GRPCInferenceServiceServicer_to_server(policy, server)
    server.add_insecure_port(target)
    await server.start()

    async def begin(on_miss: Callable[[Instance, Miss], None] | None = None, **options: Any) -> Instance:
        loop = asyncio.get_running_loop()
        misses: list[Miss] = []

        def on_loop(miss: Miss) -> None:
            misses.append(miss)
            if on_miss is None:
                miss.fail(grpc.StatusCode.NOT_FOUND.value[0], "model not found")
            else:
                on_miss(instance, miss)

        settings: dict[str, Any] = {
            "instance_id": "self",
            "runtime_target": runtime_process.target,
            "grpc_listen": ["127.0.0.1:0"],
            "rest_listen": ["127.0.0.1:0"],
            "peer_listen": "127.0.0.1:0",
            **options,
        }
        dataplane = Dataplane(
            on_miss=lambda miss: loop.call_soon_threadsafe(on_loop, miss), policy_target=target, **settings
        )
        dataplane.start()
        dataplane.set_rpcs(V2_RPCS, allow_other=True)
        dataplane.set_methods(V2_METHODS, allow_any=True)
        instance = Instance(dataplane, misses)
        running.append(instance)
        return instance

    yield begin
    for instance in running:
        await instance.channel.close()
        await instance.rest.aclose()
        await asyncio.to_thread(instance.dataplane.stop, 2000)
    await server.stop(0)


@pytest.fixture
async def instance(start: Start) -> Instance:
    """An instance whose model server holds the model of the tests."""
    started = await start()
    started.route_local()
    return started

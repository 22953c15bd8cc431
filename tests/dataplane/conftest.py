"""Instances and their surroundings, started for tests and ended after them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from modelmesh_dataplane import Call, Dataplane, Miss

from tests.dataplane.harness import V2_METHODS, V2_RPCS, Instance, RuntimeProcess, Start, answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


@pytest.fixture(scope="session")
def runtime_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuntimeProcess]:
    process = RuntimeProcess(tmp_path_factory.mktemp("runtime") / "s")
    yield process
    process.kill()


@pytest.fixture
async def start(runtime_process: RuntimeProcess) -> AsyncIterator[Start]:
    """Starts instances; `on_miss` and `on_call` answer on the event loop."""
    running: list[Instance] = []

    async def begin(
        on_miss: Callable[[Instance, Miss], None] | None = None,
        on_call: Callable[[Call], None] = answer,
        **options: Any,
    ) -> Instance:
        def fail(_: Instance, miss: Miss) -> None:
            miss.fail(grpc.StatusCode.NOT_FOUND.value[0], "model not found")

        settings: dict[str, Any] = {
            "instance_id": "self",
            "runtime_target": runtime_process.target,
            "grpc_listen": ["127.0.0.1:0"],
            "rest_listen": ["127.0.0.1:0"],
            "peer_listen": "127.0.0.1:0",
            **options,
        }
        dataplane = Dataplane(**settings)
        dataplane.start()
        dataplane.set_rpcs(V2_RPCS, allow_other=True)
        dataplane.set_methods(V2_METHODS, allow_any=True)
        instance = Instance(dataplane, on_miss or fail, on_call)
        running.append(instance)
        asyncio.get_running_loop().add_reader(dataplane.fileno(), instance.take)
        return instance

    yield begin
    for instance in running:
        await instance.channel.close()
        await instance.rest.aclose()
        await asyncio.to_thread(instance.dataplane.stop, 2000)
        asyncio.get_running_loop().remove_reader(instance.dataplane.fileno())


@pytest.fixture
async def instance(start: Start) -> Instance:
    """An instance whose model server holds the model of the tests."""
    started = await start()
    started.route_local()
    return started

"""A mesh instance around a dataplane: a model server in another process, and a policy written by the test."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import httpx
import pytest
from modelmesh_dataplane import Call, CopyRoute, Dataplane, Gone, Miss, Reply

from api.proto import kfs_inference_v2_pb2 as v2
from api.proto import kfs_inference_v2_pb2_grpc as v2_grpc
from api.proto import model_mesh_pb2 as mmesh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = Path(__file__).with_name("fake_runtime.py")
ALIAS, MODEL = "digits", "digits__isvc-0123456789"
STREAMS = ["Echo", "Collect", "Expand", "Greet"]
"""Methods of the fake model server that stream, of the service test.Streams."""
V2_RPCS = {
    "inference.GRPCInferenceService/ModelInfer": ([1], True),
    "inference.GRPCInferenceService/ModelMetadata": ([1], True),
    **{f"test.Streams/{method}": ([1], True) for method in STREAMS},
}
V2_METHODS = {
    "inference.GRPCInferenceService/ModelInfer": [1],
    "inference.GRPCInferenceService/ModelMetadata": [1],
    **{f"test.Streams/{method}": [1] for method in STREAMS},
}


class RuntimeProcess:
    """The fake model server, on a Unix socket, so that it can come back at the same address."""

    def __init__(self, socket: Path) -> None:
        self.target = f"unix:{socket}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, str(RUNTIME), self.target], stdout=subprocess.PIPE, env=environment
        )
        assert self._process.stdout
        assert self._process.stdout.readline(), "the fake model server did not start"

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None


def answer(call: Call) -> None:
    """The management API of an instance, as far as the tests call it."""
    if call.method == "mmesh.ModelMesh/getModelStatus":
        asked = mmesh.GetStatusRequest.FromString(call.message)
        call.reply(mmesh.ModelStatusInfo(errors=[asked.modelId]).SerializeToString())
    elif call.method == "inference.GRPCInferenceService/ModelReady":
        if v2.ModelReadyRequest.FromString(call.message).name == "asleep":
            call.reply(v2.ModelReadyResponse(ready=False).SerializeToString())
        else:
            call.fail(grpc.StatusCode.NOT_FOUND.value[0], "model not found")
    else:
        call.fail(grpc.StatusCode.UNIMPLEMENTED.value[0], "the policy has no such method")


class Instance:
    """A started dataplane, its clients, and what it has reported."""

    def __init__(
        self,
        dataplane: Dataplane,
        on_miss: Callable[[Instance, Miss], None],
        on_call: Callable[[Call], None],
    ) -> None:
        self.dataplane = dataplane
        self.misses: list[Miss] = []
        self.gone: list[int] = []
        self.replies: dict[int, asyncio.Future[Reply]] = {}
        self._on_miss = on_miss
        self._on_call = on_call
        self.addresses = dict(dataplane.addresses())
        self.channel = grpc.aio.insecure_channel(
            self.addresses["grpc"], options=[("grpc.max_receive_message_length", 64 << 20)]
        )
        self.stub = v2_grpc.GRPCInferenceServiceStub(self.channel)
        self.rest = httpx.AsyncClient(base_url=f"http://{self.addresses['rest']}", timeout=30)

    def take(self) -> None:
        """Has the policy of the test answer what there is for it."""
        for event in self.dataplane.take():
            match event:
                case Miss():
                    self.misses.append(event)
                    self._on_miss(self, event)
                case Call():
                    self._on_call(event)
                case Gone():
                    self.gone.append(event.number)
                case Reply():
                    self.reply(event.number).set_result(event)

    def reply(self, number: int) -> asyncio.Future[Reply]:
        """The reply to a call of the policy."""
        return self.replies.setdefault(number, asyncio.get_running_loop().create_future())

    def route(self, *copies: CopyRoute, generation: int = 1) -> None:
        """Routes the alias of the tests to copies of its model."""
        self.dataplane.update(generation, {MODEL: copies}, {ALIAS: [(MODEL, 100)]})

    def route_local(self) -> None:
        self.route(CopyRoute("self", None))

    async def infer(self, name: str = ALIAS, request_id: str = "", **options: Any) -> v2.ModelInferResponse:
        return await self.stub.ModelInfer(v2.ModelInferRequest(model_name=name, id=request_id), **options)


class Start(Protocol):
    """Starts an instance; the callbacks are its policy, options are those of `Dataplane`."""

    async def __call__(
        self,
        on_miss: Callable[[Instance, Miss], None] | None = None,
        on_call: Callable[[Call], None] = answer,
        **options: Any,
    ) -> Instance: ...


@asynccontextmanager
async def failing(code: grpc.StatusCode, *texts: str) -> AsyncIterator[None]:
    """Expects a call to fail with a code and a text that contains others."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield
    assert caught.value.code() == code, caught.value.details()
    for text in texts:
        assert text in (caught.value.details() or "")


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Waits until a condition holds, and fails if it does not within some seconds."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - the condition is of another process
            await asyncio.sleep(0.01)

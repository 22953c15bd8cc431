"""The puller in front of a custom server: what the server gets, and what is left when things go wrong."""

# ruff: noqa: N802 - the SPI names its methods so

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from grpc import aio

from adapters.errors import ConfigurationError
from adapters.puller.main import Settings, main, serve
from api.proto.model_runtime_pb2 import (
    LoadModelRequest,
    LoadModelResponse,
    ModelSizeRequest,
    ModelSizeResponse,
    PredictModelSizeRequest,
    PredictModelSizeResponse,
    RuntimeStatusRequest,
    RuntimeStatusResponse,
    UnloadModelRequest,
    UnloadModelResponse,
)
from api.proto.model_runtime_pb2_grpc import (
    ModelRuntimeServicer,
    ModelRuntimeStub,
    add_ModelRuntimeServicer_to_server,
)

READY, STARTING = RuntimeStatusResponse.READY, RuntimeStatusResponse.STARTING


class CustomServer(ModelRuntimeServicer):
    """A model server of a user."""

    def __init__(self) -> None:
        self.loads: list[LoadModelRequest] = []
        self.unloads: list[str] = []
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.gate: asyncio.Event | None = None
        self.loading = asyncio.Event()

    async def loadModel(self, request: LoadModelRequest, context: Any) -> LoadModelResponse:
        self.loads.append(request)
        self.loading.set()
        if self.gate:
            await self.gate.wait()
        if self.refusal:
            await context.abort(*self.refusal)
        return LoadModelResponse(sizeInBytes=77, maxConcurrency=3)

    async def unloadModel(self, request: UnloadModelRequest, context: Any) -> UnloadModelResponse:
        self.unloads.append(request.modelId)
        if request.modelId == "unknown":
            await context.abort(grpc.StatusCode.NOT_FOUND, "never heard of it")
        if request.modelId == "stuck":
            await context.abort(grpc.StatusCode.INTERNAL, "cannot let go")
        return UnloadModelResponse()

    async def predictModelSize(self, request: PredictModelSizeRequest, context: Any) -> Any:  # noqa: ARG002
        self.predicted = request
        return PredictModelSizeResponse(sizeInBytes=json.loads(request.modelKey)["disk_size_bytes"] * 2)

    async def modelSize(self, request: ModelSizeRequest, context: Any) -> ModelSizeResponse:  # noqa: ARG002
        return ModelSizeResponse(sizeInBytes=88)

    async def runtimeStatus(self, request: RuntimeStatusRequest, context: Any) -> RuntimeStatusResponse:  # noqa: ARG002
        return RuntimeStatusResponse(status=READY, capacityInBytes=1234, runtimeVersion="mine")


async def start_custom_server(socket: Path) -> tuple[CustomServer, aio.Server]:
    custom, server = CustomServer(), aio.server()
    add_ModelRuntimeServicer_to_server(custom, server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    return custom, server


@dataclass
class Files:
    """A web server with files, which can be made to stop in the middle of one."""

    url: str = ""
    stall: bool = False
    stalled: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "absent" in request.path:
            return web.Response(status=404)
        response = web.StreamResponse(headers={"ETag": '"v1"'})
        response.content_length = 2_000_000
        await response.prepare(request)
        await response.write(b"x" * 1_000_000)
        if self.stall and "Range" not in request.headers:
            self.stalled.set()
            await self.go_on.wait()
        with contextlib.suppress(ConnectionError):
            await response.write(b"x" * 1_000_000)
        return response


@pytest.fixture
async def files() -> AsyncIterator[Files]:
    served = Files()
    application = web.Application()
    application.router.add_get("/{path:.*}", served.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    served.go_on.set()
    await runner.cleanup()


@dataclass
class Pod:
    root: Path
    custom: CustomServer
    stub: ModelRuntimeStub
    files: Files
    custom_server: aio.Server

    def load(self, model_id: str = "m", path: str = "dir/model.bin", **key: Any) -> Any:
        params = {"storage_params": {"type": "http", "url": self.files.url}}
        return self.stub.loadModel(
            LoadModelRequest(
                modelId=model_id, modelType="mt:custom", modelPath=path, modelKey=json.dumps(params | key)
            ),
            timeout=30,
        )

    def left(self) -> list[str]:
        names = (str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())
        return sorted(name for name in names if not name.startswith("_content/"))


def variables(folder: Path, port: int) -> dict[str, str]:
    return {
        "PORT": str(port),
        "MODEL_SERVER_ENDPOINT": f"unix:{folder / 'custom.sock'}",
        "ROOT_MODEL_DIR": str(folder / "models"),
        "STORAGE_CONFIG_DIR": str(folder / "secret"),
    }


@pytest.fixture
async def pod(tmp_path: Path, files: Files, free_tcp_port: int) -> AsyncIterator[Pod]:
    custom, custom_server = await start_custom_server(tmp_path / "custom.sock")
    stop = asyncio.Event()
    settings = Settings.from_environment(variables(tmp_path, free_tcp_port))
    task = asyncio.create_task(serve(settings, stop))
    async with aio.insecure_channel(settings.address) as channel:
        await asyncio.wait_for(channel.channel_ready(), 20)
        yield Pod(tmp_path / "models", custom, ModelRuntimeStub(channel), files, custom_server)
    stop.set()
    await asyncio.wait_for(task, 20)
    await custom_server.stop(0)


@pytest.fixture
def free_tcp_port() -> int:
    import socket  # noqa: PLC0415 - here only

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - other processes' files have no event
            await asyncio.sleep(0.005)


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(aio.AioRpcError) as raised:
        await call
    return raised.value.code(), raised.value.details() or ""


async def test_the_server_gets_files_and_no_storage_settings(pod: Pod) -> None:
    answer = await pod.load(model_type={"name": "custom", "version": "1"}, future="field")
    assert (answer.sizeInBytes, answer.maxConcurrency) == (77, 3)
    (request,) = pod.custom.loads
    assert (request.modelId, request.modelType) == ("m", "mt:custom")
    assert request.modelPath == str(pod.root / "m" / "model.bin")
    assert json.loads(request.modelKey) == {
        "model_type": {"name": "custom", "version": "1"},
        "disk_size_bytes": 2_000_000,
        "future": "field",  # the original drops what it does not know
    }
    assert pod.left() == ["m/model.bin"]


async def test_unload_reaches_the_server_and_then_the_files_go(pod: Pod) -> None:
    await pod.load()
    await pod.stub.unloadModel(UnloadModelRequest(modelId="m"))
    await pod.stub.unloadModel(UnloadModelRequest(modelId="unknown"))
    assert pod.custom.unloads == ["m", "unknown"]
    assert pod.left() == []


async def test_a_server_that_keeps_a_model_keeps_its_files(pod: Pod) -> None:
    await pod.load("stuck")
    code, message = await refused(pod.stub.unloadModel(UnloadModelRequest(modelId="stuck")))
    assert (code, message) == (grpc.StatusCode.INTERNAL, "cannot let go")
    assert pod.left() == ["stuck/model.bin"]


async def test_a_refused_load_keeps_the_servers_code_and_leaves_nothing(pod: Pod) -> None:
    pod.custom.refusal = (grpc.StatusCode.INVALID_ARGUMENT, "not my kind of model")
    code, message = await refused(pod.load())
    assert (code, message) == (grpc.StatusCode.INVALID_ARGUMENT, "not my kind of model")
    assert pod.custom.unloads == ["m"]
    assert pod.left() == []


async def test_a_model_that_is_not_there_is_not_found(pod: Pod) -> None:
    code, message = await refused(pod.load(path="absent"))
    assert code is grpc.StatusCode.NOT_FOUND
    assert "absent" in message
    assert pod.custom.loads == []


async def test_a_key_that_is_no_json_is_the_users(pod: Pod) -> None:
    request = LoadModelRequest(modelId="m", modelKey="{", modelPath="p")
    code, message = await refused(pod.stub.loadModel(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("Invalid modelKey")


async def test_sizes_are_asked_with_what_will_be_on_disk(pod: Pod) -> None:
    key = json.dumps({"storage_params": {"type": "http", "url": pod.files.url}})
    request = PredictModelSizeRequest(modelId="m", modelPath="dir/x", modelKey=key)
    assert (await pod.stub.predictModelSize(request)).sizeInBytes == 4_000_000
    assert pod.custom.predicted.modelPath == str(pod.root / "m" / "x")
    assert (await pod.stub.modelSize(ModelSizeRequest(modelId="m"))).sizeInBytes == 88


async def test_status_is_the_servers_and_purges_before_ready(pod: Pod) -> None:
    await pod.load("a/b")
    (pod.root / "_server").mkdir()
    status = await pod.stub.runtimeStatus(RuntimeStatusRequest())
    assert (status.status, status.capacityInBytes, status.runtimeVersion) == (READY, 1234, "mine")
    assert pod.custom.unloads == ["a/b"]
    assert pod.left() == []
    assert (pod.root / "_server").exists()


async def test_a_purge_that_fails_is_failing(pod: Pod) -> None:
    await pod.load("stuck")
    status = await pod.stub.runtimeStatus(RuntimeStatusRequest())
    assert status.status == RuntimeStatusResponse.FAILING


async def test_a_server_that_is_away_is_starting(pod: Pod) -> None:
    await pod.custom_server.stop(0)
    assert await pod.stub.runtimeStatus(RuntimeStatusRequest()) == RuntimeStatusResponse(status=STARTING)


async def test_a_cancelled_pull_leaves_nothing_and_freezes_nobody(pod: Pod) -> None:
    """The original's result channel: one cancelled call stops every later one."""
    pod.files.stall = True
    call = pod.load()
    await asyncio.wait_for(pod.files.stalled.wait(), 20)
    call.cancel()
    await until(lambda: not pod.left())
    pod.files.stall = False
    await pod.load("other")
    await pod.load("m")
    assert pod.left() == ["m/model.bin", "other/model.bin"]


async def test_a_cancelled_load_is_undone_in_the_server(pod: Pod) -> None:
    pod.custom.gate = asyncio.Event()
    call = pod.load()
    await asyncio.wait_for(pod.custom.loading.wait(), 20)
    call.cancel()
    await until(lambda: pod.custom.unloads)
    await until(lambda: not pod.left())


async def test_an_unload_overtakes_a_load(pod: Pod) -> None:
    pod.files.stall = True
    call = pod.load()
    await asyncio.wait_for(pod.files.stalled.wait(), 20)
    await pod.stub.unloadModel(UnloadModelRequest(modelId="m"))
    code, _ = await refused(call)
    assert code is grpc.StatusCode.ABORTED
    assert pod.left() == []


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"MODEL_SERVER_ENDPOINT": "8085"}, "MODEL_SERVER_ENDPOINT"),
        ({"MODEL_SERVER_ENDPOINT": "port:0"}, "MODEL_SERVER_ENDPOINT"),
        ({"MODEL_SERVER_ENDPOINT": ""}, "MODEL_SERVER_ENDPOINT"),
        ({"MODEL_SERVER_ENDPOINT": "unix:"}, "must be port:NUMBER or unix:PATH"),
        ({"PORT": "x"}, "PORT"),
        ({"PORT": ""}, "PORT"),
        ({"PULL_CONCURRENCY": "0"}, "PULL_CONCURRENCY"),
        ({"MODEL_CACHE_BYTES": "-1"}, "MODEL_CACHE_BYTES"),
        ({"PORT": "x", "MODEL_CACHE_BYTES": "1Gi"}, "PORT.*MODEL_CACHE_BYTES"),
    ],
)
def test_wrong_variables_are_all_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Settings.from_environment(environment)


def test_the_command_takes_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "MODEL_SERVER_ENDPOINT" in capsys.readouterr().out
    assert main(["x"]) == 2


@pytest.mark.e2e
async def test_a_killed_puller_leaves_no_half_model(tmp_path: Path, files: Files, free_tcp_port: int) -> None:
    custom, custom_server = await start_custom_server(tmp_path / "custom.sock")
    environment = os.environ | variables(tmp_path, free_tcp_port)

    async def start() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "modelmesh", "puller", env=environment
        )

    root = tmp_path / "models"
    process = await start()
    try:
        async with aio.insecure_channel(f"127.0.0.1:{free_tcp_port}") as channel:
            stub = ModelRuntimeStub(channel)
            pod = Pod(root, custom, stub, files, custom_server)
            status = await stub.runtimeStatus(RuntimeStatusRequest(), wait_for_ready=True, timeout=60)
            assert status.status == READY
            files.stall = True
            call = asyncio.ensure_future(pod.load())
            await asyncio.wait_for(files.stalled.wait(), 30)
            await until(lambda: any(path.stat().st_size for path in root.glob("_pulling/m/*")))
            process.send_signal(signal.SIGKILL)
            await process.wait()
            code, _ = await refused(call)
            assert code is grpc.StatusCode.UNAVAILABLE
            assert not (root / "m").exists()
            files.stall = False
            process = await start()
            status = await stub.runtimeStatus(RuntimeStatusRequest(), wait_for_ready=True, timeout=60)
            assert pod.left() == []
            await pod.load()
            assert pod.left() == ["m/model.bin"]
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await custom_server.stop(0)

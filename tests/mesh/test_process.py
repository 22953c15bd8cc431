"""The mesh process itself: real etcd, the real byte path, a model server that can be killed."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError

from api.proto import kfs_inference_v2_pb2 as v2
from api.proto import kfs_inference_v2_pb2_grpc, model_mesh_pb2_grpc
from api.proto.model_mesh_pb2 import (
    GetStatusRequest,
    GetVModelStatusRequest,
    ModelInfo,
    ModelStatusInfo,
    SetVModelRequest,
    VModelStatusInfo,
)
from store.connection import EtcdConnection, connect
from tests.store.etcd_server import EtcdServer, etcd_server, free_port
from tests.store.waiting import until

pytestmark = pytest.mark.e2e

DATAPLANE_CONFIG = {
    "rpcConfigs": {"inference.GRPCInferenceService/ModelInfer": {"idExtractionPath": [1], "vModelId": True}},
    "allowOtherRpcs": True,
}
MESH = [sys.executable, "-c", "from mesh.main import main; raise SystemExit(main([]))"]
RUNTIME = Path(__file__).with_name("runtime_process.py")
ROOT = Path(__file__).parents[2]


@dataclass
class Process:
    """One mesh instance with the model server beside it."""

    name: str
    folder: Path
    etcd: EtcdServer
    stack: ExitStack
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ports = {
            name: free_port() for name in ("grpc", "rest", "peer", "probe", "prestop", "metrics", "runtime")
        }
        self.mesh: subprocess.Popen[bytes] | None = None
        self.runtime: subprocess.Popen[bytes] | None = None

    def start_runtime(self) -> None:
        command = [sys.executable, str(RUNTIME), str(self.ports["runtime"])]
        self.runtime = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
        self.stack.callback(end, self.runtime)

    def start_mesh(self) -> None:
        (self.folder / "dataplane").write_text(json.dumps(DATAPLANE_CONFIG))
        connection = {"endpoints": f"http://{self.etcd.endpoint}", "root_prefix": f"/{self.folder.name}"}
        (self.folder / "etcd_connection").write_text(json.dumps(connection))
        environment = {
            "MM_SERVICE_NAME": "modelmesh-serving",
            "WKUBE_POD_NAME": f"modelmesh-serving-mlserver-{self.name}",
            "WKUBE_POD_IPADDR": "127.0.0.1",
            "MM_BIND_ADDRESS": "127.0.0.1",
            "KV_STORE": f"etcd:{self.folder / 'etcd_connection'}",
            "MM_SVC_GRPC_PORT": str(self.ports["grpc"]),
            "MM_SVC_REST_PORT": str(self.ports["rest"]),
            "MM_PEER_PORT": str(self.ports["peer"]),
            "MM_PROBE_PORT": str(self.ports["probe"]),
            "MM_PRESTOP_WAIT_PORT": str(self.ports["prestop"]),
            "MM_METRICS": f"prometheus:port={self.ports['metrics']};scheme=http",
            "INTERNAL_GRPC_PORT": str(self.ports["runtime"]),
            "MM_DATAPLANE_CONFIG_PATH": str(self.folder / "dataplane"),
            "SHUTDOWN_TIMEOUT_MS": "8000",
        }
        self.mesh = subprocess.Popen(MESH, cwd=ROOT, env=os.environ | environment | self.environment)
        self.stack.callback(end, self.mesh)

    def url(self, port: str, path: str) -> str:
        return f"http://127.0.0.1:{self.ports[port]}{path}"

    def status(self, port: str, path: str) -> int:
        try:
            return httpx.get(self.url(port, path), timeout=2).status_code
        except httpx.TransportError:
            return 0

    async def wait_ready(self) -> None:
        def is_ready() -> bool:
            assert self.mesh is not None
            assert self.mesh.poll() is None, "the mesh has ended"
            return self.status("probe", "/ready") == 200

        await until(is_ready, 60)


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


@dataclass
class Client:
    """What users and the controller call."""

    channel: Any

    def __post_init__(self) -> None:
        self.mesh: Any = model_mesh_pb2_grpc.ModelMeshStub(self.channel)
        self.v2: Any = kfs_inference_v2_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    async def deploy(self, name: str, path: str = "SIZE_1000_0_0", *, sync: bool = True) -> VModelStatusInfo:
        model = ModelInfo(type="t", path=path)
        request = SetVModelRequest(
            vModelId=name, targetModelId=f"{name}-1", modelInfo=model, loadNow=True, sync=sync, owner="isvc"
        )
        answer: VModelStatusInfo = await self.mesh.setVModel(request)
        return answer

    async def infer(self, name: str, seconds: float = 30) -> str:
        answer = await self.v2.ModelInfer(v2.ModelInferRequest(model_name=name, id="7"), timeout=seconds)
        assert answer.id == "7"
        return str(answer.model_name)


@contextlib.asynccontextmanager
async def client(process: Process) -> AsyncIterator[Client]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{process.ports['grpc']}") as channel:
        yield Client(channel)


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with etcd_server(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
async def one(tmp_path: Path, etcd: EtcdServer, stack: ExitStack) -> Process:
    process = Process("5f6d7-aaaaa", tmp_path, etcd, stack)
    process.start_runtime()
    process.start_mesh()
    await process.wait_ready()
    return process


async def test_deploy_and_infer_on_both_protocols(one: Process) -> None:
    async with client(one) as user:
        info = await user.deploy("v")
        assert info.activeModelStatus.status == ModelStatusInfo.LOADED
        assert [copy.location for copy in info.activeModelStatus.modelCopyInfos] == ["5f6d7-aaaaa"]
        assert await user.infer("v") == "v-1"
        body = {"id": "7", "inputs": [{"name": "in", "shape": [1], "datatype": "INT64", "data": [1]}]}
        async with httpx.AsyncClient(base_url=one.url("rest", "")) as rest:
            answer = await rest.post("/v2/models/v/infer", json=body)
            assert (answer.status_code, answer.json()["model_name"]) == (200, "v-1")
            assert answer.json()["outputs"][0]["data"] == [8]
            assert (await rest.get("/v2/models/v/ready")).status_code == 200
            assert (await rest.get("/v2/health/ready")).status_code == 200
            assert (await rest.post("/v2/models/nobody/infer", json=body)).status_code == 404
            metrics = (await rest.get(one.url("metrics", "/metrics"))).text
        old_name = user.channel.unary_unary("/com.ibm.watson.tas.proto.TasRuntime/getModelStatus")
        answer = await old_name(GetStatusRequest(modelId="v-1").SerializeToString())
        assert ModelStatusInfo.FromString(answer).status == ModelStatusInfo.LOADED
        assert "modelmesh_loadmodel_milliseconds_count 1.0" in metrics
        assert "modelmesh_api_request_milliseconds" in metrics
        assert one.status("probe", "/live") == 200


async def test_errors_reach_the_client_as_they_are(one: Process) -> None:
    async with client(one) as user:
        info = await user.deploy("bad", "CODE_NOT_FOUND:no object x in bucket y")
        assert list(info.activeModelStatus.errors) == ["NOT_FOUND: no object x in bucket y"]
        with pytest.raises(AioRpcError) as broken:
            await user.infer("bad")
        with pytest.raises(AioRpcError) as unknown:
            await user.infer("nobody")
        await user.deploy("slow", "SIZE_1000_1500_0", sync=False)
        with pytest.raises(AioRpcError) as late:
            await user.infer("slow", 0.2)
        assert (broken.value.code(), broken.value.details()) == (
            StatusCode.FAILED_PRECONDITION,
            "NOT_FOUND: no object x in bucket y",
        )
        assert (unknown.value.code(), unknown.value.details()) == (
            StatusCode.NOT_FOUND,
            "vmodel not found: nobody",
        )
        assert late.value.code() is StatusCode.DEADLINE_EXCEEDED
        assert await user.infer("slow") == "slow-1"


async def test_the_next_request_after_the_server_was_killed_is_served_when_it_is_back(one: Process) -> None:
    async with client(one) as user:
        for name in ("a", "b"):
            await user.deploy(name)
        assert one.runtime is not None
        one.runtime.kill()
        one.runtime.wait()
        request = asyncio.create_task(user.infer("a"))
        await until(lambda: one.status("probe", "/ready") == 503)
        one.start_runtime()
        assert await request == "a-1"
        assert await user.infer("b") == "b-1"


async def test_a_server_that_restarted_unseen_has_its_models_loaded_again(one: Process) -> None:
    async with client(one) as user:
        await user.deploy("a")
        assert one.runtime is not None
        one.runtime.kill()
        one.runtime.wait()
        one.start_runtime()
        await until(lambda: listens(one.ports["runtime"]))
        assert await user.infer("a") == "a-1"


async def test_more_models_than_fit_are_served_by_turns(one: Process) -> None:
    async with client(one) as user:
        names = [f"v{number:02}" for number in range(25)]
        await asyncio.gather(*(user.deploy(name, sync=False) for name in names))
        for _ in range(2):
            answers = await asyncio.gather(*(user.infer(name) for name in names))
            assert answers == [f"{name}-1" for name in names]


async def test_a_second_instance_is_the_same_mesh(tmp_path: Path, one: Process) -> None:
    two = Process("5f6d7-bbbbb", tmp_path, one.etcd, one.stack)
    two.start_runtime()
    two.start_mesh()
    await two.wait_ready()
    async with client(one) as first, client(two) as second:
        await first.deploy("v")
        assert await second.infer("v") == "v-1"
        assert one.mesh is not None
        one.mesh.kill()
        one.mesh.wait()
        assert await second.infer("v") == "v-1"


async def test_resident_memory_is_within_96_mib(one: Process) -> None:
    async with client(one) as user:
        await user.deploy("v")
        for _ in range(500):
            await user.infer("v")
    assert one.mesh is not None
    resident = psutil.Process(one.mesh.pid).memory_info().rss
    assert resident / 2**20 <= 96


async def test_sigterm_ends_it_and_its_entry_in_the_registry(one: Process) -> None:
    async with client(one) as user:
        await user.deploy("v")
    assert one.mesh is not None
    prestop = asyncio.create_task(asyncio.to_thread(httpx.get, one.url("prestop", "/prestop"), timeout=20))
    started = time.monotonic()
    one.mesh.send_signal(signal.SIGTERM)
    await until(lambda: one.status("probe", "/ready") != 200)
    assert await asyncio.to_thread(one.mesh.wait, 10) == 0
    assert time.monotonic() - started < 8
    assert (await prestop).status_code == 200
    store = await connect(EtcdConnection((one.etcd.endpoint,), f"/{one.folder.name}"))
    try:
        assert (await store.range("/mm/modelmesh-serving/v1/instances/")).items == []
    finally:
        await store.close()


async def test_sigterm_ends_it_while_it_waits_for_another_of_its_name(
    etcd: EtcdServer, stack: ExitStack, one: Process
) -> None:
    other = Process(one.name, one.folder, etcd, stack)
    other.start_mesh()
    assert other.mesh is not None
    await until(lambda: other.status("probe", "/live") == 200, 60)
    await until(lambda: listens(other.ports["grpc"]), 60)
    assert other.status("probe", "/ready") == 503
    other.mesh.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(other.mesh.wait, 10) == 0
    assert one.status("probe", "/ready") == 200


async def test_an_etcd_that_lost_everything_is_filled_again_while_models_go_on_serving(
    tmp_path: Path, stack: ExitStack
) -> None:
    etcd = stack.enter_context(etcd_server(tmp_path))
    process = Process("5f6d7-aaaaa", tmp_path, etcd, stack)
    process.start_runtime()
    process.start_mesh()
    await process.wait_ready()
    async with client(process) as user:
        await user.deploy("v")
        await asyncio.to_thread(etcd.stop)
        assert await user.infer("v") == "v-1"
        etcd.wipe()
        await asyncio.to_thread(etcd.start)
        store = await connect(EtcdConnection((etcd.endpoint,), f"/{tmp_path.name}"))
        try:

            async def is_back(kind: str) -> bool:
                return len((await store.range(f"/mm/modelmesh-serving/v1/{kind}/")).items) == 1

            for kind in ("registry", "vmodels", "instances"):
                await until(lambda kind=kind: is_back(kind), 60)
        finally:
            await store.close()
        assert await user.infer("v") == "v-1"
        info = await user.mesh.getVModelStatus(GetVModelStatusRequest(vModelId="v"))
        assert info.activeModelStatus.status == ModelStatusInfo.LOADED
        assert (await user.deploy("w")).activeModelStatus.status == ModelStatusInfo.LOADED


async def test_settings_that_the_controller_changes_take_effect(
    tmp_path: Path, etcd: EtcdServer, stack: ExitStack
) -> None:
    constraints = tmp_path / "type_constraints"
    constraints.write_text("{}")
    environment = {"MM_TYPE_CONSTRAINTS_PATH": str(constraints), "MM_LABELS": "mt:t"}
    process = Process("5f6d7-aaaaa", tmp_path, etcd, stack, environment)
    process.start_runtime()
    process.start_mesh()
    await process.wait_ready()
    async with client(process) as user:
        await user.deploy("v")
        await user.infer("v")
        constraints.write_text('{"_default": {"required": ["_no_runtime"]}}')

        names = (f"w{number}" for number in itertools.count())

        async def has_no_home() -> bool:
            answer = await user.deploy(next(names), sync=False)
            return list(answer.activeModelStatus.errors) == [
                "There are no running instances that meet the label requirements of type t: [_no_runtime]"
            ]

        await until(has_no_home)
        assert await user.infer("v") == "v-1"
        (tmp_path / "dataplane").write_text('{"rpcConfigs": {}, "allowOtherRpcs": false}')

        async def is_refused() -> bool:
            try:
                await user.infer("v")
            except AioRpcError as error:
                return error.code() is StatusCode.UNIMPLEMENTED
            return False

        await until(is_refused)
        constraints.write_text("{ nonsense")
        (tmp_path / "dataplane").write_text(json.dumps(DATAPLANE_CONFIG))

        async def is_served() -> bool:
            return not await is_refused()

        await until(is_served)
        assert await has_no_home(), "what cannot be read leaves the last good setting in force"


def static_models(path: str) -> dict[str, str]:
    models = [{"modelId": "s", "modelInfo": {"type": "t", "path": path}, "ensureLoaded": True}]
    return {"MM_AUTO_REGISTER_MODELS": json.dumps(models)}


async def test_a_model_that_must_be_loaded_is_loaded_before_it_is_ready(
    tmp_path: Path, etcd: EtcdServer, stack: ExitStack
) -> None:
    process = Process("5f6d7-aaaaa", tmp_path, etcd, stack, static_models("SIZE_1000_1000_0"))
    process.start_runtime()
    process.start_mesh()
    await until(lambda: process.status("probe", "/live") == 200, 60)
    assert process.status("probe", "/ready") == 503
    await process.wait_ready()
    async with client(process) as user:
        info = await user.mesh.getModelStatus(GetStatusRequest(modelId="s"))
        assert info.status == ModelStatusInfo.LOADED


def test_a_model_that_must_be_loaded_and_cannot_ends_the_process(
    tmp_path: Path, etcd: EtcdServer, stack: ExitStack
) -> None:
    process = Process("5f6d7-aaaaa", tmp_path, etcd, stack, static_models("FAIL_broken"))
    process.start_runtime()
    assert "FAILED_PRECONDITION: broken" in run_to_its_end(process)


@contextmanager
def taken(port: int) -> Iterator[None]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        yield


@pytest.mark.parametrize("port", ["grpc", "rest", "peer", "probe"])
def test_a_taken_port_is_named(tmp_path: Path, etcd: EtcdServer, stack: ExitStack, port: str) -> None:
    process = Process("5f6d7-aaaaa", tmp_path, etcd, stack)
    with taken(process.ports[port]):
        output = run_to_its_end(process)
    assert f"127.0.0.1:{process.ports[port]}" in output


def test_no_registry_is_said(tmp_path: Path, etcd: EtcdServer, stack: ExitStack) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    process = Process("5f6d7-aaaaa", tmp_path, etcd, stack, {"KV_STORE": f"etcd:{nowhere}"})
    assert nowhere in run_to_its_end(process)


def test_a_missing_setting_is_named(tmp_path: Path, etcd: EtcdServer, stack: ExitStack) -> None:
    process = Process("5f6d7-aaaaa", tmp_path, etcd, stack, {"MM_SERVICE_NAME": ""})
    assert "MM_SERVICE_NAME" in run_to_its_end(process)


def run_to_its_end(process: Process) -> str:
    with (process.folder / "output").open("wb") as output:
        saved, stdout = os.dup(1), output.fileno()
        os.dup2(stdout, 1)
        try:
            process.start_mesh()
        finally:
            os.dup2(saved, 1)
            os.close(saved)
    assert process.mesh is not None
    assert process.mesh.wait(15) == 1
    return (process.folder / "output").read_text()


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
        return True
    return False

"""The measuring tools are held to what they claim: a wrong account here would make every figure wrong."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from api.proto import kfs_inference_v2_pb2 as v2
from api.proto import kfs_inference_v2_pb2_grpc as v2_grpc
from api.proto import model_mesh_pb2 as mesh
from api.proto import model_mesh_pb2_grpc as mesh_grpc
from api.proto import model_runtime_pb2 as spi
from api.proto import model_runtime_pb2_grpc as spi_grpc
from bench import echo

# The first test builds the crate.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

INFER = "inference.GRPCInferenceService/ModelInfer"
FOREVER_MS = 600_000


class Client:
    """Calls one echo runtime."""

    def __init__(self, runtime: echo.EchoRuntime, target: str) -> None:
        self.runtime = runtime
        # gRPC would send the path of a socket as the authority, which HTTP/2 servers in Rust refuse.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.default_authority", "localhost")]
        self.channel = grpc.aio.insecure_channel(target, options)
        self.spi = spi_grpc.ModelRuntimeStub(self.channel)
        self.v2 = v2_grpc.GRPCInferenceServiceStub(self.channel)

    def load(self, model_id: str, path: str = "") -> Any:
        return self.spi.loadModel(spi.LoadModelRequest(modelId=model_id, modelPath=path))

    def unload(self, model_id: str) -> Any:
        return self.spi.unloadModel(spi.UnloadModelRequest(modelId=model_id))

    def infer(self, name: str, request_id: str = "") -> Any:
        return self.v2.ModelInfer(v2.ModelInferRequest(model_name=name, id=request_id))

    async def until(self, condition: Callable[[dict[str, int]], bool]) -> dict[str, int]:
        """Waits for statistics that meet a condition."""
        async with asyncio.timeout(10):
            while not condition(stats := self.runtime.stats()):  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.01)
            return stats


async def refused(call: Any, code: StatusCode, text: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert (caught.value.code(), caught.value.details()) == (code, text)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "loads"


@pytest.fixture
def runtime(log: Path, tmp_path: Path) -> Iterator[echo.EchoRuntime]:
    options = ("--capacity", "100", "--default-size", "10", "--load-slots", "3", "--load-timeout-ms", "5000")
    listen = ("--listen", "127.0.0.1:0", "--listen", f"unix:{tmp_path}/socket", "--load-log", str(log))
    with echo.EchoRuntime(*options, *listen) as runtime:
        yield runtime


@pytest.fixture
async def client(runtime: echo.EchoRuntime) -> AsyncIterator[Client]:
    client = Client(runtime, runtime.target)
    async with client.channel:
        yield client


async def test_the_status_tells_the_options(client: Client) -> None:
    status = await client.spi.runtimeStatus(spi.RuntimeStatusRequest())
    assert status.status == spi.RuntimeStatusResponse.READY
    assert (status.capacityInBytes, status.maxLoadingConcurrency) == (100, 3)
    assert (status.modelLoadingTimeoutMs, status.defaultModelSizeInBytes) == (5000, 10)
    assert list(status.methodInfos[INFER].idInjectionPath) == [1]
    assert not status.allowAnyMethod


async def test_flags_change_methods_and_sizes() -> None:
    with echo.EchoRuntime(
        "--method", "a.B/C=1,2", "--allow-any-method", "--no-predict", "--size-after-load"
    ) as other:
        client = Client(other, other.target)
        async with client.channel:
            status = await client.spi.runtimeStatus(spi.RuntimeStatusRequest())
            assert {name: list(info.idInjectionPath) for name, info in status.methodInfos.items()} == {
                "a.B/C": [1, 2]
            }
            assert status.allowAnyMethod
            predicted = client.spi.predictModelSize(spi.PredictModelSizeRequest(modelPath="SIZE_7_0_0"))
            await refused(predicted, StatusCode.UNIMPLEMENTED, "sizes are not predicted")
            assert (await client.load("a", "SIZE_7_0_0")).sizeInBytes == 0
            assert (await client.spi.modelSize(spi.ModelSizeRequest(modelId="a"))).sizeInBytes == 7


async def test_a_model_serves_between_load_and_unload(client: Client) -> None:
    await refused(client.infer("a"), StatusCode.NOT_FOUND, "Model a not found")
    predicted = await client.spi.predictModelSize(spi.PredictModelSizeRequest(modelPath="SIZE_40_0_0"))
    assert predicted.sizeInBytes == 40
    assert (await client.load("a", "SIZE_40_0_0")).sizeInBytes == 40
    answer = await client.infer("a", "7")
    assert (answer.model_name, answer.id, len(answer.raw_output_contents)) == ("a", "7", 1)
    assert (await client.v2.ModelMetadata(v2.ModelMetadataRequest(name="a"))).name == "a"
    assert (await client.v2.ModelReady(v2.ModelReadyRequest(name="a"))).ready
    assert (await client.v2.ServerReady(v2.ServerReadyRequest())).ready
    assert (await client.v2.ServerLive(v2.ServerLiveRequest())).live
    await client.unload("a")
    await client.unload("unknown")
    await refused(client.infer("a"), StatusCode.NOT_FOUND, "Model a not found")
    stats = client.runtime.stats()
    assert (stats["loads"], stats["unloads"], stats["infers"], stats["not_found"]) == (1, 1, 1, 2)
    assert (stats["bytes"], stats["peak_bytes"]) == (0, 40)


async def test_it_serves_unix_sockets(runtime: echo.EchoRuntime) -> None:
    client = Client(runtime, runtime.targets[1])
    async with client.channel:
        assert (await client.v2.ServerLive(v2.ServerLiveRequest())).live


async def test_loads_beyond_the_capacity_are_refused_and_counted(client: Client, log: Path) -> None:
    await client.load("a", "SIZE_60_0_0")
    text = "Model b needs 41 bytes, and 60 of 100 are in use"
    await refused(client.load("b", "SIZE_41_0_0"), StatusCode.RESOURCE_EXHAUSTED, text)
    await client.load("c", "SIZE_40_0_0")
    stats = client.runtime.stats()
    assert (stats["loads"], stats["over_capacity"]) == (2, 1)
    assert (stats["bytes"], stats["peak_bytes"], stats["peak_asked_bytes"]) == (100, 100, 101)
    assert log.read_text() == "a\nc\n"  # noqa: ASYNC240 - a few bytes


async def test_memory_is_held_while_a_model_is_loaded_and_unloaded(client: Client) -> None:
    loading = asyncio.ensure_future(client.load("a", f"SIZE_60_{FOREVER_MS}_{FOREVER_MS}"))
    await client.until(lambda stats: stats["loading"] == 1)
    text = "Model b needs 41 bytes, and 60 of 100 are in use"
    await refused(client.load("b", "SIZE_41_0_0"), StatusCode.RESOURCE_EXHAUSTED, text)
    unloading = asyncio.ensure_future(client.unload("a"))
    await client.until(lambda stats: (stats["loading"], stats["unloading"]) == (0, 1))
    await refused(client.load("b", "SIZE_41_0_0"), StatusCode.RESOURCE_EXHAUSTED, text)
    await refused(client.load("a"), StatusCode.FAILED_PRECONDITION, "Model a is being unloaded")
    assert client.runtime.stats()["conflicts"] == 1
    assert not loading.done()
    assert not unloading.done()
    loading.cancel()
    unloading.cancel()
    await asyncio.gather(loading, unloading, return_exceptions=True)


async def test_loading_and_unloading_take_their_time(client: Client) -> None:
    clock = asyncio.get_running_loop().time
    begin = clock()
    await client.load("a", "SIZE_1_60_40")
    loaded = clock()
    await client.unload("a")
    assert loaded - begin >= 0.06
    assert clock() - loaded >= 0.04
    assert client.runtime.stats()["bytes"] == 0


async def test_a_failing_model_fails_with_its_text_and_keeps_no_memory(client: Client) -> None:
    await refused(client.load("a", "FAIL_no such file"), StatusCode.FAILED_PRECONDITION, "no such file")
    stats = client.runtime.stats()
    assert (stats["failed_loads"], stats["bytes"], stats["peak_bytes"]) == (1, 0, 10)


@pytest.mark.parametrize("by", ["cancel", "disconnect"])
async def test_an_abandoned_load_holds_its_memory_until_it_is_unloaded(client: Client, by: str) -> None:
    other = Client(client.runtime, client.runtime.target)
    loading = asyncio.ensure_future(other.load("a", f"SIZE_60_{FOREVER_MS}_0"))
    await client.until(lambda stats: stats["loading"] == 1)
    if by == "cancel":
        loading.cancel()
    await other.channel.close()
    await asyncio.gather(loading, return_exceptions=True)
    stats = await client.until(lambda stats: stats["cancelled"] == 1)
    assert (stats["cancelled_loads"], stats["loading"], stats["bytes"]) == (1, 0, 60)
    await client.unload("a")
    assert client.runtime.stats()["bytes"] == 0


async def test_status_and_purge_lose_all_models(client: Client) -> None:
    await client.load("a")
    assert client.runtime.purge()["bytes"] == 0
    await refused(client.infer("a"), StatusCode.NOT_FOUND, "Model a not found")
    await client.load("a")
    await client.spi.runtimeStatus(spi.RuntimeStatusRequest())
    await refused(client.infer("a"), StatusCode.NOT_FOUND, "Model a not found")
    assert client.runtime.stats()["purged"] == 2


async def test_reset_counts_from_zero(client: Client) -> None:
    await client.load("a")
    await client.load("b")
    await client.unload("b")
    assert client.runtime.reset()["loads"] == 2
    stats = client.runtime.stats()
    assert (stats["loads"], stats["unloads"], stats["peak_bytes"], stats["bytes"]) == (0, 0, 10, 10)


async def test_a_request_id_asks_for_an_error(client: Client) -> None:
    request_id = "test:error:code=UNAVAILABLE:message=on demand: 100 %"
    await refused(client.infer("a", request_id), StatusCode.UNAVAILABLE, "on demand: 100 %")
    await refused(client.infer("a", "test:error:code=13:message=x"), StatusCode.INTERNAL, "x")


async def test_requests_in_progress_when_a_model_is_unloaded_are_counted() -> None:
    with echo.EchoRuntime("--infer-delay-ms", "300") as slow:
        client = Client(slow, slow.target)
        async with client.channel:
            await client.load("a", "")
            answers = [asyncio.ensure_future(client.infer("a")) for _ in range(3)]
            await asyncio.wait_for(client.v2.ServerLive(v2.ServerLiveRequest()), 5)
            await client.unload("a")
            await asyncio.gather(*answers)
            assert slow.stats()["unloaded_in_use"] == 1
            assert slow.stats()["infers"] == 3


async def _load_models(client: Client, count: int) -> None:
    for index in range(count):
        await client.load(f"model-{index}", "SIZE_1_0_0")


async def _generate(*options: str) -> dict[str, Any]:
    return await asyncio.to_thread(echo.load, *options)


async def test_the_closed_loop_sends_what_it_says_and_writes_the_sequence(
    client: Client, tmp_path: Path
) -> None:
    await _load_models(client, 19)
    sequences = [tmp_path / "first", tmp_path / "second"]
    for sequence in sequences:
        report = await _generate(
            *("--target", client.runtime.target, "--connections", "1", "--models", "20", "--zipf", "1"),
            *("--requests", "3000", "--in-flight", "4", "--seed", "5", "--sequence", str(sequence)),
        )
        asked = Counter(sequence.read_text().split())
        assert report["requests"] == asked.total() == 3000
        assert report["errors"] == {"NOT_FOUND": asked["model-19"]}
        assert report["error_texts"] == {"NOT_FOUND": "Model model-19 not found"}
        assert report["ok"] == 3000 - asked["model-19"] == client.runtime.stats()["infers"]
        assert 0 < report["p50_ms"] <= report["p99_ms"] <= report["p99_9_ms"] <= report["max_ms"]
        # Zipf(1.0) over 20 models gives the first 28 % of the requests, and the last 1.4 %.
        shares = [count / 3000 for _, count in asked.most_common()]
        assert 0.24 < shares[0] < 0.32
        assert shares[-1] < 0.03
        client.runtime.reset()
    assert sequences[0].read_text() == sequences[1].read_text()


async def test_the_open_loop_holds_its_rate_beside_a_hot_model(client: Client) -> None:
    await _load_models(client, 10)
    await client.load("hot", "SIZE_1_0_0")
    report = await _generate(
        *("--target", client.runtime.target, "--models", "10", "--rate", "400", "--seconds", "2"),
        *("--hot", "hot", "--hot-rate", "200"),
    )
    # A Poisson process: 800 and 400 arrivals, with standard deviations of 28 and 20.
    assert 650 < report["requests"] < 950
    assert 300 < report["hot"]["requests"] < 500
    assert report["errors"] == report["hot"]["errors"] == {}
    assert client.runtime.stats()["infers"] == report["ok"] + report["hot"]["ok"]


class Registrar(mesh_grpc.ModelMeshServicer):
    """A mesh that keeps what it is asked to register, and refuses one model."""

    def __init__(self) -> None:
        self.registered: dict[str, tuple[str, str]] = {}

    async def registerModel(  # noqa: N802 - the protocol's name
        self, request: mesh.RegisterModelRequest, context: Any
    ) -> mesh.ModelStatusInfo:
        if request.modelId == "m-7":
            await context.abort(StatusCode.INVALID_ARGUMENT, "not this one")
        assert request.modelId not in self.registered
        self.registered[request.modelId] = (request.modelInfo.type, request.modelInfo.path)
        return mesh.ModelStatusInfo()


async def test_each_model_is_registered_once_from_the_first_number_on() -> None:
    registrar, server = Registrar(), grpc.aio.server()
    mesh_grpc.add_ModelMeshServicer_to_server(registrar, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    report = await _generate(
        *(f"--target=127.0.0.1:{port}", "--register=SIZE_1_0_0", "--model=m-{}"),
        *("--models=50", "--first=5", "--in-flight=8"),
    )
    await server.stop(0)
    assert (report["requests"], report["ok"]) == (50, 49)
    assert report["error_texts"] == {"INVALID_ARGUMENT": "not this one"}
    expected = {f"m-{number}" for number in range(5, 55)} - {"m-7"}
    assert registrar.registered == dict.fromkeys(expected, ("echo", "SIZE_1_0_0"))


async def test_a_deadline_ends_requests() -> None:
    with echo.EchoRuntime("--infer-delay-ms", str(FOREVER_MS)) as slow:
        client = Client(slow, slow.target)
        async with client.channel:
            await client.load("model-0")
            report = await _generate(
                "--target", slow.target, "--requests", "20", "--in-flight", "20", "--deadline-ms", "100"
            )
    assert report["errors"] == {"DEADLINE_EXCEEDED": 20}
    assert (report["ok"], report["p50_ms"]) == (0, None)


async def test_several_targets_take_turns_and_one_that_is_gone_is_unavailable(client: Client) -> None:
    with echo.EchoRuntime() as other:
        for each in (client, other_client := Client(other, other.target)):
            await each.load("model-0")
        targets = ("--target", client.runtime.target, "--target", other.target)
        report = await _generate(*targets, "--requests", "100")
        assert report["ok"] == 100
        assert client.runtime.stats()["infers"] == other.stats()["infers"] == 50
        await other_client.channel.close()
    report = await _generate(*targets, "--requests", "100", "--in-flight", "2")
    assert report["ok"] == 50
    assert report["errors"] == {"UNAVAILABLE": 50}


def test_an_address_that_is_taken_is_named(
    runtime: echo.EchoRuntime, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError, match="ended with 1"):
        echo.EchoRuntime("--listen", runtime.target)
    assert runtime.target in capfd.readouterr().err

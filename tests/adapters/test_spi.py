"""What the mesh may rely on: order, cancellation, purging, restarts of the model server, codes."""

import asyncio
import inspect
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from adapters.errors import ServerError
from api.proto.model_runtime_pb2 import (
    ModelSizeRequest,
    PredictModelSizeRequest,
    RuntimeStatusRequest,
    RuntimeStatusResponse,
)

READY = RuntimeStatusResponse.READY
STARTING = RuntimeStatusResponse.STARTING


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while True:
            holds = condition()
            if await holds if inspect.isawaitable(holds) else holds:
                return
            await asyncio.sleep(0.005)


def says(status: RuntimeStatusResponse.Status.ValueType, ask: Callable[[], Any]) -> Callable[[], Any]:
    async def told() -> bool:
        return bool((await ask()).status == status)

    return told


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(aio.AioRpcError) as raised:
        await call
    return raised.value.code(), raised.value.details() or ""


# ---------------------------------------------------------------- status


async def test_ready_tells_the_limits_of_the_runtime(fake: Any) -> None:
    status = await fake.mesh.ready()
    assert status.capacityInBytes == (1024 - 128) << 20
    assert (status.maxLoadingConcurrency, status.modelLoadingTimeoutMs) == (1, 20_000)
    assert (status.defaultModelSizeInBytes, status.runtimeVersion) == (1_000_000, "9.8.7")
    assert not status.limitModelConcurrency
    assert {name: list(info.idInjectionPath) for name, info in status.methodInfos.items()} == {
        "inference.GRPCInferenceService/ModelInfer": [1],
        "inference.GRPCInferenceService/ModelMetadata": [1],
    }


async def test_starting_until_the_server_is_ready(fake: Any) -> None:
    await fake.mesh.ready()
    fake.server.die()
    assert await fake.mesh.status() == RuntimeStatusResponse(status=STARTING)
    fake.server.come_back()
    await fake.mesh.ready()


async def test_a_server_that_cannot_tell_its_version_yet_is_starting(
    run_adapter: Any, fake_type: Any, tmp_path: Path
) -> None:
    class Starting(fake_type):  # type: ignore[misc]
        told = ""

        async def version(self) -> str:
            if not self.told:
                raise ServerError(grpc.StatusCode.UNAVAILABLE, "metadata not loaded")
            return self.told

    async with run_adapter(Starting, tmp_path) as adapter:
        assert (await adapter.mesh.status()).status == STARTING
        adapter.server.told = "2.51.0"
        assert (await adapter.mesh.ready()).runtimeVersion == "2.51.0"


async def test_everything_is_purged_before_the_first_ready(
    run_adapter: Any, fake_type: Any, tmp_path: Path
) -> None:
    class OldServer(fake_type):  # type: ignore[misc]
        before = frozenset({"old"})

    for folder in ("_fake_models/old", "old", "_pulling/half", "_of_others"):
        (tmp_path / "models" / folder).mkdir(parents=True)
    async with run_adapter(OldServer, tmp_path, USE_EMBEDDED_PULLER="true") as adapter:
        await adapter.mesh.ready()
        assert adapter.server.models == set()
        assert adapter.files() == ["_of_others"]


async def test_files_stay_while_the_server_loads_what_a_dead_adapter_asked_for(
    run_adapter: Any, fake_type: Any, tmp_path: Path
) -> None:
    class Loading(fake_type):  # type: ignore[misc]
        async def busy(self) -> list[str]:
            return ["old"] if self.loading else []

        loading = True

    file = tmp_path / "models" / "_fake_models" / "old" / "model"
    file.parent.mkdir(parents=True)
    file.touch()
    async with run_adapter(Loading, tmp_path) as adapter:
        assert (await adapter.mesh.status()).status == STARTING
        assert file.exists()
        adapter.server.loading = False
        await adapter.mesh.ready()
        assert not file.exists()


async def test_files_that_cannot_be_purged_are_failing_and_recover(
    run_adapter: Any, fake_type: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr("adapters.sdk.models.clear_folder", refuse)
        async with run_adapter(fake_type, tmp_path) as adapter:
            await until(says(RuntimeStatusResponse.FAILING, adapter.mesh.status))
            patched.undo()
            await adapter.mesh.ready()


# ---------------------------------------------------------------- load and unload


async def test_a_load_lays_out_loads_and_tells_the_size(fake: Any) -> None:
    await fake.mesh.ready()
    answer = await fake.mesh.load("m", model_type={"name": "SKLearn:0"}, disk_size_bytes=54321)
    assert (answer.sizeInBytes, answer.maxConcurrency) == (int(54321 * 1.25), 0)
    assert fake.server.models == {"m"}
    assert (fake.settings.root / "_fake_models" / "m" / "laid-out").read_text() == "sklearn"
    size = await fake.mesh.stub.modelSize(ModelSizeRequest(modelId="m"))
    assert size.sizeInBytes == answer.sizeInBytes


@pytest.mark.parametrize("key", [{}, {"disk_size_bytes": 0}])
async def test_an_unknown_size_is_the_default_and_never_zero(fake: Any, key: dict[str, int]) -> None:
    assert (await fake.mesh.load("m", **key)).sizeInBytes == 1_000_000


async def test_a_measured_size_beats_the_estimate(fake: Any) -> None:
    fake.server.sizes["m"] = 777
    assert (await fake.mesh.load("m", disk_size_bytes=54321)).sizeInBytes == 777


async def test_sizes_are_predicted_from_the_size_on_disk(fake: Any) -> None:
    request = PredictModelSizeRequest(modelId="m", modelKey='{"disk_size_bytes": 100}')
    assert (await fake.mesh.stub.predictModelSize(request)).sizeInBytes == 125


async def test_the_size_of_a_model_that_is_not_loaded_is_unknown(fake: Any) -> None:
    code, _ = await refused(fake.mesh.stub.modelSize(ModelSizeRequest(modelId="m")))
    assert code is grpc.StatusCode.NOT_FOUND


async def test_a_concurrency_limit_reaches_the_mesh(run_adapter: Any, fake_type: Any, tmp_path: Path) -> None:
    async with run_adapter(fake_type, tmp_path, LIMIT_PER_MODEL_CONCURRENCY=3) as adapter:
        assert (await adapter.mesh.ready()).limitModelConcurrency
        assert (await adapter.mesh.load("m")).maxConcurrency == 3


async def test_an_unload_leaves_nothing_and_an_unknown_model_is_fine(fake: Any) -> None:
    await fake.mesh.load("m")
    await fake.mesh.unload("m")
    await fake.mesh.unload("m")
    assert fake.server.models == set()
    assert fake.files() == []


async def test_the_servers_code_and_words_reach_the_mesh_and_nothing_is_left(fake: Any) -> None:
    fake.server.refusals["m"] = ServerError(grpc.StatusCode.FAILED_PRECONDITION, "the weights are broken")
    code, message = await refused(fake.mesh.load("m"))
    assert (code, message) == (grpc.StatusCode.FAILED_PRECONDITION, "the weights are broken")
    assert fake.server.models == set()
    assert fake.files() == []


async def test_a_bad_key_is_an_invalid_argument(fake: Any) -> None:
    code, message = await refused(fake.mesh.load("m", storage_key=5))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("Invalid modelKey")


async def test_an_unexpected_failure_is_told_and_the_adapter_lives(
    fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("surprise")

    await fake.mesh.ready()
    with monkeypatch.context() as patched:
        patched.setattr(fake.server, "lay_out", fail)
        code, message = await refused(fake.mesh.load("m"))
    assert (code, message) == (grpc.StatusCode.INTERNAL, "the adapter failed: KeyError: 'surprise'")
    await fake.mesh.load("m")


async def test_different_models_load_side_by_side_and_one_model_in_order(fake: Any) -> None:
    await fake.mesh.ready()
    gate = fake.server.hold("slow")
    slow = asyncio.ensure_future(fake.mesh.load("slow"))
    await until(lambda: "load slow" in fake.server.calls)
    await fake.mesh.load("quick")
    again = asyncio.ensure_future(fake.mesh.load("slow"))
    await fake.mesh.load("quick")
    assert fake.server.calls.count("load slow") == 1
    gate.set()
    await asyncio.gather(slow, again)
    assert fake.server.calls.count("load slow") == 2


# ---------------------------------------------------------------- cancellation


async def test_nothing_is_removed_under_a_layout_whose_load_was_cancelled(
    run_adapter: Any, fake_type: Any, tmp_path: Path
) -> None:
    began, gate = threading.Event(), threading.Event()

    class Converting(fake_type):  # type: ignore[misc]
        def lay_out(self, model: Any, folder: Path) -> None:
            began.set()
            gate.wait(20)
            super().lay_out(model, folder)

    async with run_adapter(Converting, tmp_path) as adapter:
        await adapter.mesh.ready()
        load = adapter.mesh.load("m")
        await until(began.is_set)
        load.cancel()
        unload = asyncio.create_task(adapter.mesh.unload("m"))
        for _ in range(10):
            await adapter.mesh.status()
        assert not unload.done()
        gate.set()
        await unload
        assert "load m" not in adapter.server.calls
        assert adapter.files() == []


async def test_after_a_cancelled_load_and_its_unload_nothing_is_loaded(fake: Any) -> None:
    await fake.mesh.ready()
    gate = fake.server.hold("m")
    load = fake.mesh.load("m")
    await until(lambda: "load m" in fake.server.calls)
    load.cancel()
    unload = asyncio.create_task(fake.mesh.unload("m"))
    await fake.mesh.load("other")
    assert not unload.done()  # the server is still at it
    gate.set()
    await unload
    assert fake.server.models == {"other"}
    assert [name for name in fake.files() if "other" not in name] == []


async def test_a_cancelled_load_cleans_up_also_without_an_unload(fake: Any) -> None:
    await fake.mesh.ready()
    gate = fake.server.hold("m")
    load = fake.mesh.load("m")
    await until(lambda: "load m" in fake.server.calls)
    load.cancel()
    await fake.mesh.status()  # on the same connection, so the cancellation has arrived
    gate.set()
    await until(lambda: "unload m" in fake.server.calls and not fake.files())
    assert fake.server.models == set()


async def test_an_unload_overtakes_loads_that_run_and_that_wait(fake: Any) -> None:
    await fake.mesh.ready()
    gate = fake.server.hold("m")
    loads = [fake.mesh.load("m") for _ in range(3)]
    await until(lambda: "load m" in fake.server.calls)
    unload = asyncio.create_task(fake.mesh.unload("m"))
    await fake.mesh.status()
    gate.set()
    await unload
    for load in loads:
        assert (await refused(load))[0] is grpc.StatusCode.ABORTED
    assert fake.server.models == set()
    assert fake.server.calls.count("load m") == 1


async def test_a_load_after_an_unload_is_not_touched_by_it(fake: Any) -> None:
    await fake.mesh.ready()
    gate = fake.server.hold("m")  # else the first load may be done before the unload arrives
    first = fake.mesh.load("m")
    await until(lambda: "load m" in fake.server.calls)
    unload = asyncio.create_task(fake.mesh.unload("m"))
    await fake.mesh.status()
    second = fake.mesh.load("m")
    await fake.mesh.status()
    gate.set()
    await unload
    await second
    assert (await refused(first))[0] is grpc.StatusCode.ABORTED
    assert fake.server.models == {"m"}


# ---------------------------------------------------------------- restarts


async def test_a_server_that_died_is_reported_once_and_comes_back_empty(fake: Any) -> None:
    await fake.mesh.ready()
    await fake.mesh.load("m")
    fake.server.die()
    assert (await fake.mesh.status()).status == STARTING
    fake.server.come_back()
    await fake.mesh.ready()
    assert fake.server.models == set()
    assert fake.files() == []
    assert (await fake.mesh.status()).status == READY


async def test_a_restart_between_two_polls_is_not_missed(fake: Any) -> None:
    await fake.mesh.ready()
    await fake.mesh.load("m")
    fake.server.die()
    fake.server.come_back()
    await until(lambda: fake.files() == [])
    assert [(await fake.mesh.status()).status for _ in range(3)] == [STARTING, READY, READY]


async def test_a_lost_connection_alone_is_no_restart(fake: Any) -> None:
    await fake.mesh.ready()
    await fake.mesh.load("m")
    fake.server.lose_connection()
    assert [(await fake.mesh.status()).status for _ in range(3)] == [READY, READY, READY]
    assert fake.server.models == {"m"}


async def test_a_load_waits_for_a_server_that_restarts(fake: Any) -> None:
    await fake.mesh.ready()
    fake.server.die()
    assert (await fake.mesh.status()).status == STARTING
    load = asyncio.ensure_future(fake.mesh.load("m"))
    fake.server.come_back()
    await load
    assert fake.server.models == {"m"}


async def test_a_load_that_the_server_died_under_is_begun_again(fake: Any) -> None:
    await fake.mesh.ready()
    gate = fake.server.hold("m")
    load = asyncio.ensure_future(fake.mesh.load("m"))
    await until(lambda: "load m" in fake.server.calls)
    fake.server.die()
    gate.set()
    await until(lambda: not fake.server.alive)
    fake.server.come_back()
    await load
    assert fake.server.models == {"m"}
    assert fake.server.calls.count("load m") == 2


async def test_a_model_that_kills_its_server_is_not_loaded_for_ever(fake: Any) -> None:
    await fake.mesh.ready()
    fake.server.poison.add("m")
    code, message = await refused(fake.mesh.load("m"))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "FakeServer" in message
    assert fake.server.calls.count("load m") == 2


async def test_a_load_does_not_wait_for_ever(run_adapter: Any, fake_type: Any, tmp_path: Path) -> None:
    async with run_adapter(fake_type, tmp_path, LOADTIME_TIMEOUT=200) as adapter:
        await adapter.mesh.ready()
        adapter.server.die()
        await adapter.mesh.status()
        code, message = await refused(adapter.mesh.load("m"))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "not ready within 0.2 s" in message


async def test_unloading_while_the_server_is_away_succeeds(fake: Any) -> None:
    await fake.mesh.load("m")
    fake.server.die()
    await fake.mesh.unload("m")
    assert fake.files() == []


# ---------------------------------------------------------------- sessions of the mesh


async def test_a_session_that_polls_keeps_its_models(fake: Any) -> None:
    await fake.mesh.ready()
    await fake.mesh.load("m")
    for _ in range(3):
        assert (await fake.mesh.status()).status == READY
    assert fake.server.models == {"m"}


async def test_the_session_is_echoed(fake: Any) -> None:
    call = fake.mesh.stub.runtimeStatus(RuntimeStatusRequest(), metadata=(("mm-session", "abc"),))
    assert dict(await call.initial_metadata())["mm-session"] == "abc"


async def test_a_new_mesh_process_finds_nothing_loaded(fake: Any) -> None:
    await fake.mesh.ready()
    await fake.mesh.load("m")
    await until(says(READY, lambda: fake.mesh.status("another")))
    assert fake.server.models == set()
    assert fake.files() == []


async def test_ready_waits_for_loads_that_a_dead_mesh_gave_up(fake: Any) -> None:
    await fake.mesh.ready()
    gate = fake.server.hold("m")
    load = fake.mesh.load("m")
    await until(lambda: "load m" in fake.server.calls)
    load.cancel()
    assert (await fake.mesh.status("another")).status == STARTING  # the server is still at it
    gate.set()
    await until(says(READY, lambda: fake.mesh.status("another")))
    assert fake.server.models == set()
    assert fake.files() == []


async def test_a_mesh_without_session_gets_an_empty_server_whenever_it_asks(fake: Any) -> None:
    def ask() -> Any:
        return fake.mesh.stub.runtimeStatus(RuntimeStatusRequest())

    await until(says(READY, ask))
    for _ in range(2):
        await fake.mesh.load("m")
        await until(says(READY, ask))
        assert fake.server.models == set()
        assert fake.files() == []


async def test_a_mesh_without_session_may_ask_while_it_loads(fake: Any) -> None:
    await until(says(READY, lambda: fake.mesh.stub.runtimeStatus(RuntimeStatusRequest())))
    gate = fake.server.hold("m")
    load = fake.mesh.load("m")
    await until(lambda: "load m" in fake.server.calls)
    await until(says(READY, lambda: fake.mesh.stub.runtimeStatus(RuntimeStatusRequest())))
    gate.set()
    await load
    assert fake.server.models == {"m"}


async def test_somebody_who_looks_disturbs_no_session(fake: Any) -> None:
    await fake.mesh.ready()
    await fake.mesh.load("m")
    assert (await fake.mesh.stub.runtimeStatus(RuntimeStatusRequest())).status == READY
    assert fake.server.models == {"m"}


# ---------------------------------------------------------------- the end


async def test_loads_under_way_are_cleaned_up_at_the_end(
    run_adapter: Any, fake_type: Any, tmp_path: Path
) -> None:
    async with run_adapter(fake_type, tmp_path) as adapter:
        await adapter.mesh.ready()
        gate = adapter.server.hold("m")
        load = adapter.mesh.load("m")
        await until(lambda: "load m" in adapter.server.calls)
        adapter.stop.set()
        gate.set()
        await refused(load)
    assert adapter.server.models == set()
    assert adapter.files() == []

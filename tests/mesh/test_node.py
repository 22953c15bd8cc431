"""One instance, from a request for a model to its copy, and back."""

import asyncio

import pytest
from grpc import StatusCode

from api.proto.model_mesh_pb2 import (
    EnsureLoadedRequest,
    GetStatusRequest,
    ModelInfo,
    ModelPolicy,
    ModelStatusInfo,
    RegisterModelRequest,
    UnregisterModelRequest,
)
from mesh import copies
from mesh.bytes import Route
from mesh.constraints import Requirement, TypeConstraints
from mesh.errors import RegistryUnavailableError, RuntimeDownError
from store.base import Put
from store.records import MODELS, ModelRecord, Resources
from tests.mesh.conftest import Instance, Mesh
from tests.mesh.fake_bytes import Failed
from tests.mesh.fake_runtime import FakeRuntime
from tests.store.waiting import until

SLOW = "SIZE_1000_5000_0"


async def register(
    instance: Instance,
    name: str,
    path: str = "SIZE_1000_0_0",
    type_: str = "t",
    policy: ModelPolicy | None = None,
) -> None:
    info = ModelInfo(type=type_, path=path, key='{"k":1}')
    await instance.api.registerModel(RegisterModelRequest(modelId=name, modelInfo=info, policy=policy))


async def status(instance: Instance, name: str) -> ModelStatusInfo:
    info: ModelStatusInfo = await instance.api.getModelStatus(GetStatusRequest(modelId=name))
    return info


async def failure(instance: Instance, name: str, **kwargs: int) -> Failed:
    with pytest.raises(Failed) as caught:
        await instance.bytes.request(name, **kwargs)  # type: ignore[arg-type]
    return caught.value


def code(failed: Failed) -> StatusCode:
    return next(code for code in StatusCode if code.value[0] == failed.code)


async def test_a_request_loads_the_model_and_finds_the_copy(mesh: Mesh) -> None:
    one = await mesh.add()
    await register(one, "m")
    assert (await status(one, "m")).status == ModelStatusInfo.NOT_LOADED
    assert await one.bytes.request("m") == Route("one", None)
    info = await status(one, "m")
    assert info.status == ModelStatusInfo.LOADED
    assert [(copy.location, copy.copyStatus) for copy in info.modelCopyInfos] == [
        ("one", ModelStatusInfo.LOADED)
    ]


async def test_requests_for_one_model_share_its_load(mesh: Mesh) -> None:
    one = await mesh.add()
    await register(one, "m", "SIZE_1000_20_0")
    await asyncio.gather(*(one.bytes.request("m") for _ in range(20)))
    assert one.runtime.loads == ["m"]


async def test_an_unknown_model_is_not_found_and_not_looked_up_again_at_once(mesh: Mesh) -> None:
    one = await mesh.add()
    mesh.clock.stop()
    failed = await failure(one, "nobody")
    assert (code(failed), failed.message) == (StatusCode.NOT_FOUND, "model not found: nobody")
    reads: list[str] = []
    store = one.node.registry.store
    original = store.get

    async def counted(key: str) -> object:
        reads.append(key)
        return await original(key)

    store.get = counted  # type: ignore[method-assign,assignment]
    await failure(one, "nobody")
    assert reads == []
    mesh.clock.ahead_ms += 2_000
    await failure(one, "nobody")
    assert len(reads) == 1


async def test_an_unknown_alias_is_not_found(mesh: Mesh) -> None:
    one = await mesh.add()
    with pytest.raises(Failed, match="vmodel not found") as caught:
        await one.bytes.request("nobody", alias=True)
    assert code(caught.value) is StatusCode.NOT_FOUND


async def test_a_broken_model_fails_with_the_servers_words_and_rests_a_while(mesh: Mesh) -> None:
    one = await mesh.add()
    await register(one, "m", "FAIL_no such layer: x")
    for _ in range(2):
        failed = await failure(one, "m")
        assert code(failed) is StatusCode.FAILED_PRECONDITION
        assert failed.message == "FAILED_PRECONDITION: no such layer: x"
    assert one.runtime.loads == ["m"]
    info = await status(one, "m")
    assert info.status == ModelStatusInfo.LOADING_FAILED
    assert list(info.errors) == ["FAILED_PRECONDITION: no such layer: x"]
    assert [copy.copyStatus for copy in info.modelCopyInfos] == [ModelStatusInfo.LOADING_FAILED]
    mesh.clock.ahead_ms += 10_001
    await failure(one, "m")
    assert one.runtime.loads == ["m", "m"]
    mesh.clock.ahead_ms += 10_001
    await failure(one, "m")
    assert one.runtime.loads == ["m", "m"], "the second rest is twice as long"
    await until(lambda: one.runtime.loaded == {})


@pytest.mark.parametrize(
    ("path", "expected", "text"),
    [
        (
            "CODE_NOT_FOUND:no object a/b in bucket c",
            StatusCode.FAILED_PRECONDITION,
            "NOT_FOUND: no object a/b",
        ),
        (
            "CODE_INVALID_ARGUMENT:unknown key k",
            StatusCode.FAILED_PRECONDITION,
            "INVALID_ARGUMENT: unknown key k",
        ),
        ("CODE_UNAVAILABLE:storage away", StatusCode.UNAVAILABLE, "UNAVAILABLE: storage away"),
        ("CODE_RESOURCE_EXHAUSTED:disk full", StatusCode.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED: disk full"),
        ("CODE_UNKNOWN:boom", StatusCode.FAILED_PRECONDITION, "boom"),
        (SLOW, StatusCode.DEADLINE_EXCEEDED, "not loaded within 0.1 s"),
    ],
)
async def test_a_failed_load_carries_its_cause(
    mesh: Mesh, path: str, expected: StatusCode, text: str
) -> None:
    one = await mesh.add(runtime=FakeRuntime(load_timeout_ms=100 if path == SLOW else 20_000))
    await register(one, "m", path)
    failed = await failure(one, "m")
    assert code(failed) is expected
    assert text in failed.message
    await until(lambda: one.runtime.unloads == ["m"])


async def test_a_model_too_large_for_the_instance_is_refused_and_nothing_evicted(mesh: Mesh) -> None:
    one = await mesh.add()
    await register(one, "small")
    await register(one, "large", "SIZE_10001_0_0")
    await one.bytes.request("small")
    failed = await failure(one, "large")
    assert code(failed) is StatusCode.RESOURCE_EXHAUSTED
    assert one.runtime.unloads == []
    assert "small" in one.bytes.models


async def test_the_least_recently_used_goes_and_comes_back(mesh: Mesh) -> None:
    one = await mesh.add()
    for name in ("a", "b", "c"):
        await register(one, name, "SIZE_4000_0_5")
    for name in ("a", "b", "c"):
        mesh.clock.ahead_ms += 10
        await one.bytes.request(name)
    assert set(one.bytes.models) == {"b", "c"}
    assert one.runtime.unloads == ["a"]
    await until(lambda: one.node.registry.peek("a").instances == {})  # type: ignore[union-attr]
    assert (await status(one, "a")).status == ModelStatusInfo.NOT_LOADED
    await one.bytes.request("a")
    assert set(one.bytes.models) == {"a", "c"}


async def test_an_evicted_copy_is_unloaded_only_when_its_requests_are_over(mesh: Mesh) -> None:
    one = await mesh.add()
    await register(one, "a", "SIZE_8000_0_0")
    await register(one, "b", "SIZE_8000_0_0")
    await one.bytes.request("a")
    one.bytes.flying["a"] = 1
    request = asyncio.create_task(one.bytes.request("b"))
    await until(lambda: "a" not in one.bytes.models)
    await asyncio.sleep(0.05)
    assert one.runtime.unloads == []
    one.bytes.flying["a"] = 0
    await request
    assert one.runtime.unloads == ["a"]


async def test_uses_that_only_the_byte_path_saw_decide_who_goes(mesh: Mesh) -> None:
    one = await mesh.add()
    for name in ("a", "b", "c"):
        await register(one, name, "SIZE_4000_0_0")
    for name in ("a", "b"):
        mesh.clock.ahead_ms += 10
        await one.bytes.request(name)
    one.bytes.used["a"] = (5, mesh.clock() + 5_000)
    await until(lambda: one.bytes.used == {})
    await one.bytes.request("c")
    assert set(one.bytes.models) == {"a", "c"}


async def test_a_deadline_ends_the_wait_but_not_the_load(mesh: Mesh) -> None:
    one = await mesh.add()
    one.runtime.gates["m"] = asyncio.Event()
    await register(one, "m")
    failed = await failure(one, "m", deadline_ms=0)
    assert code(failed) is StatusCode.DEADLINE_EXCEEDED
    request = asyncio.create_task(one.bytes.request("m"))
    await until(lambda: one.runtime.loads == ["m"])
    one.runtime.gates["m"].set()
    await request


async def test_deleting_a_model_unloads_it_everywhere(mesh: Mesh) -> None:
    one = await mesh.add()
    await register(one, "m")
    await one.bytes.request("m")
    await one.api.unregisterModel(UnregisterModelRequest(modelId="m"))
    await until(lambda: one.runtime.loaded == {} and "m" not in one.bytes.models)
    assert (await status(one, "m")).status == ModelStatusInfo.NOT_FOUND


async def test_deleting_a_model_cancels_its_load(mesh: Mesh) -> None:
    one = await mesh.add()
    one.runtime.gates["m"] = asyncio.Event()
    await register(one, "m")
    request = asyncio.create_task(failure(one, "m"))
    await until(lambda: one.runtime.loads == ["m"])
    await one.api.unregisterModel(UnregisterModelRequest(modelId="m"))
    await request
    await until(lambda: one.runtime.cancelled == ["m"] and one.runtime.unloads == ["m"])
    await until(lambda: one.node.loader.cache.in_use.memory == 0)


async def test_a_copy_that_the_server_has_lost_is_loaded_again_within_the_request(mesh: Mesh) -> None:
    one = await mesh.add()
    await register(one, "m")
    route = await one.bytes.request("m")
    one.bytes.models.pop("m")
    assert await one.bytes.request("m", excluded=["one"], failure="not_found") == route
    assert one.runtime.loads == ["m", "m"]


async def test_a_copy_that_was_loaded_since_the_request_failed_stays(mesh: Mesh) -> None:
    """A slow request may tell of a copy that others have had replaced meanwhile."""
    one = await mesh.add()
    await register(one, "m")
    route = await one.bytes.request("m")
    lost = {"excluded": ["one"], "failure": "not_found"}
    assert await one.bytes.request("m", **lost, since_tried_ms=60_000) == route  # type: ignore[arg-type]
    assert one.runtime.loads == ["m"]
    one.bytes.models.pop("m")
    assert await one.bytes.request("m", **lost, since_tried_ms=0) == route  # type: ignore[arg-type]
    assert one.runtime.loads == ["m", "m"]


async def test_a_server_that_died_is_waited_for_and_what_was_in_use_comes_back_by_itself(mesh: Mesh) -> None:
    one = await mesh.add()
    for name in ("a", "b"):
        await register(one, name)
        await one.bytes.request(name)
    await one.runtime.crash()
    one.bytes.models.pop("a", None)
    request = asyncio.create_task(one.bytes.request("a", excluded=["one"], failure="unavailable"))
    await until(lambda: not one.node.readiness and one.bytes.models == {})
    assert not one.bytes.ready
    await until(lambda: one.node.registry.peek("b").instances == {})  # type: ignore[union-attr]
    await one.runtime.start()
    await request
    await until(lambda: set(one.bytes.models) == {"a", "b"})
    assert sorted(one.runtime.loads) == ["a", "a", "b", "b"]


async def test_a_server_is_asked_for_its_status_only_while_nothing_is_loaded(mesh: Mesh) -> None:
    """Asking a healthy one would have it unload everything."""
    one = await mesh.add()
    await register(one, "m")
    await one.bytes.request("m")
    asked = one.runtime.statuses
    one.bytes.models.pop("m")
    await one.bytes.request("m", excluded=["one"], failure="unavailable")
    assert one.runtime.statuses == asked


async def test_a_server_that_knows_our_session_tells_that_it_had_to_start_again(mesh: Mesh) -> None:
    one = await mesh.add(runtime=FakeRuntime(knows_sessions=True))
    await register(one, "m")
    await one.bytes.request("m")
    one.runtime.loaded.clear()
    one.runtime.restarted = True
    await until(lambda: one.runtime.loads == ["m", "m"])
    await until(lambda: "m" in one.bytes.models)


async def test_asking_a_server_that_knows_our_session_empties_nothing(mesh: Mesh) -> None:
    one = await mesh.add(runtime=FakeRuntime(knows_sessions=True))
    await register(one, "m")
    await one.bytes.request("m")
    asked = one.runtime.statuses
    await until(lambda: one.runtime.statuses > asked)
    assert "m" in one.runtime.loaded
    assert one.runtime.unloads == []


async def test_a_request_that_comes_before_the_server_is_ready_waits_for_it(mesh: Mesh) -> None:
    one = await mesh.add(runtime=FakeRuntime(status=0))  # type: ignore[arg-type]
    await register(one, "m")
    request = asyncio.create_task(one.bytes.request("m"))
    await until(lambda: one.runtime.statuses > 1)
    assert not one.bytes.ready
    one.runtime.status = 1  # type: ignore[assignment]
    assert await request == Route("one", None)
    assert one.bytes.ready


@pytest.mark.parametrize(
    ("type_", "expected", "text"),
    [
        ("rt:gone", StatusCode.FAILED_PRECONDITION, "of type rt:gone: [_no_runtime]"),
        ("mt:onnx", StatusCode.UNAVAILABLE, "of type mt:onnx: [mt:onnx, pv:v2]"),
    ],
)
async def test_no_home_is_told_in_the_words_that_the_controller_knows(
    mesh: Mesh, type_: str, expected: StatusCode, text: str
) -> None:
    mesh.constraints = TypeConstraints(
        {
            "mt:onnx": Requirement(required=("mt:onnx", "pv:v2")),
            "_default": Requirement(required=("_no_runtime",)),
        }
    )
    one = await mesh.add(MM_LABELS="mt:sklearn,pv:v2")
    await register(one, "m", type_=type_)
    failed = await failure(one, "m")
    assert code(failed) is expected
    whole = f"There are no running instances that meet the label requirements {text}"
    assert failed.message == whole
    info = await status(one, "m")
    assert (info.status, list(info.errors)) == (ModelStatusInfo.LOADING_FAILED, [whole])


async def test_sizes_are_corrected_by_what_the_server_measures(mesh: Mesh) -> None:
    one = await mesh.add(runtime=FakeRuntime(predicts=False))
    await register(one, "m", "SIZE_7000_0_0")
    await one.bytes.request("m")
    assert one.node.loader.cache.in_use.memory == 7000
    await until(lambda: one.node.registry.peek("m").size == Resources(7000))  # type: ignore[union-attr]


async def test_loads_keep_to_the_servers_concurrency(mesh: Mesh) -> None:
    one = await mesh.add(runtime=FakeRuntime(load_slots=3, capacity=100_000))
    names = [f"m{number}" for number in range(20)]
    for name in names:
        await register(one, name, "SIZE_1000_5_0")
    await asyncio.gather(*(one.bytes.request(name) for name in names))
    assert one.runtime.most_loading == 3


async def test_a_requests_load_overtakes_background_ones(mesh: Mesh) -> None:
    one = await mesh.add(runtime=FakeRuntime(load_slots=1, capacity=100_000))
    one.runtime.gates["first"] = asyncio.Event()
    for name in ("first", "second", "third", "urgent"):
        await register(one, name)
    for name in ("first", "second", "third"):
        await one.api.ensureLoaded(EnsureLoadedRequest(modelId=name))
    await until(lambda: one.runtime.loads == ["first"] and one.node.loader.pending == 3)
    request = asyncio.create_task(one.bytes.request("urgent"))
    promoted = asyncio.create_task(one.bytes.request("third"))
    await until(lambda: one.node.loader.pending == 4)
    one.runtime.gates["first"].set()
    await asyncio.gather(request, promoted)
    await until(lambda: len(one.runtime.loads) == 4)
    assert set(one.runtime.loads[1:3]) == {"urgent", "third"}
    assert one.runtime.loads[3] == "second"


async def test_thrash_never_overcommits_and_serves_everybody(mesh: Mesh) -> None:
    one = await mesh.add(runtime=FakeRuntime(load_slots=4, capacity=10_000))
    names = [f"m{number}" for number in range(30)]
    for number, name in enumerate(names):
        await register(one, name, f"SIZE_{1000 + number * 70}_1_1")
    for _ in range(3):
        await asyncio.gather(*(one.bytes.request(name) for name in names))
    await until(lambda: one.node.loader.cache.freeing == 0)
    assert one.runtime.used == one.node.loader.cache.in_use.memory <= 10_000


async def test_a_stopped_instance_leaves_nothing_in_the_registry(mesh: Mesh) -> None:
    one = await mesh.add()
    await register(one, "m")
    await one.bytes.request("m")
    await one.stop()
    prefix = one.node.registry.keys
    assert mesh.store.range(prefix.instances).items == []
    assert b"instanceIds" not in mesh.store.range(prefix.models).items[0].value


async def test_an_instance_whose_copies_cannot_be_deregistered_leaves_all_the_same(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await mesh.add()
    await register(one, "m")
    await one.bytes.request("m")
    await one.node.registry.settled()

    async def refuse(_: object) -> None:
        raise RegistryUnavailableError("the record was changed by others meanwhile")

    monkeypatch.setattr(one.node.registry, "update_each", refuse)
    await one.stop()
    assert mesh.store.range(one.node.registry.keys.instances).items == []


async def test_a_stopped_instance_loads_nothing(mesh: Mesh) -> None:
    """What still runs on it, as the leader's sweep does, may want to."""
    one = await mesh.add()
    await register(one, "m")
    await one.stop()
    with pytest.raises(RuntimeDownError, match="shutting down"):
        await one.node.ensurer.load_here("m", last_used=1, urgent=False)


async def test_copies_that_a_former_process_of_the_name_left_behind_are_forgotten(mesh: Mesh) -> None:
    one = await mesh.add("one")
    await register(one, "m")
    await mesh.add("two")
    two = mesh.instances["two"]
    await two.node.registry.update("m", copies.claimed("three", 1, 1))
    three = await mesh.add("three")
    record = three.node.registry.peek("m")
    assert record is not None
    assert record.instances == {}


async def test_loaded_models_go_on_serving_without_the_store_and_after_it_was_wiped(mesh: Mesh) -> None:
    one = await mesh.add()
    await register(one, "m")
    await one.bytes.request("m")
    mesh.store.set_available(False)
    assert await one.bytes.request("m") == Route("one", None)
    failed = await failure(one, "unknown")
    assert code(failed) is StatusCode.UNAVAILABLE
    mesh.store.wipe()
    mesh.store.set_available(True)
    await until(lambda: len(mesh.store.range(one.node.registry.keys.models).items) == 1)
    assert await one.bytes.request("m") == Route("one", None)
    assert one.runtime.unloads == []


async def test_a_model_replaced_by_another_of_its_name_at_once_is_loaded_anew(mesh: Mesh) -> None:
    one = await mesh.add()
    await register(one, "m", "SIZE_1000_0_0")
    await one.bytes.request("m")
    other = ModelRecord(type="t", path="SIZE_2000_0_0")
    key = one.node.registry.models.key("m")
    await one.node.registry.store.txn([], [Put(key, MODELS.encode(other))])
    await until(lambda: one.runtime.loaded == {} and "m" not in one.bytes.models)
    await one.bytes.request("m")
    await until(lambda: one.node.loader.cache.in_use.memory == 2000)


async def last_used(instance: Instance, name: str) -> int:
    await instance.node.registry.settled()
    record = instance.node.registry.peek(name)
    assert record is not None
    return record.last_used


async def test_the_last_use_of_an_evicted_copy_reaches_its_record(mesh: Mesh) -> None:
    one = await mesh.add()
    for name in ("old", "new"):
        await register(one, name, "SIZE_6000_0_0")
    await one.bytes.request("old")
    used = mesh.clock() + 60_000
    mesh.clock.ahead_ms += 120_000
    one.bytes.used["old"] = (7, used)
    await one.bytes.request("new")
    assert "old" not in one.bytes.models
    assert await last_used(one, "old") == used


async def test_a_use_that_is_counted_after_the_eviction_reaches_the_record_too(mesh: Mesh) -> None:
    one = await mesh.add()
    await register(one, "m")
    await one.bytes.request("m")
    one.node.loader.unload("m", why="test")
    used = mesh.clock() + 1_000
    one.bytes.used["m"] = (1, used)
    one.node._note_use()
    assert await last_used(one, "m") == used


async def test_last_uses_reach_the_records_when_the_server_is_lost(mesh: Mesh) -> None:
    one = await mesh.add()
    await register(one, "m")
    await one.bytes.request("m")
    used = mesh.clock() + 1_000
    one.bytes.used["m"] = (1, used)
    await one.runtime.crash()
    await one.node.guard.suspect()
    assert await last_used(one, "m") == used


async def test_last_uses_reach_the_records_of_an_instance_that_stops(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await register(one, "m")
    await one.bytes.request("m")
    used = mesh.clock() + 1_000
    one.bytes.used["m"] = (1, used)
    await one.stop()
    await two.node.registry.refresh("m")
    record = two.node.registry.peek("m")
    assert record is not None
    assert (record.instances, record.last_used) == ({}, used)


async def test_a_model_in_use_is_tried_again_after_half_the_expiry_of_its_failure(mesh: Mesh) -> None:
    one = await mesh.add(MM_LOAD_FAILURE_EXPIRY_TIME_MS="2000")
    mesh.clock.stop()
    await register(one, "m", "FAIL_broken")
    for _ in range(2):
        await failure(one, "m")
    assert one.runtime.loads == ["m"]
    mesh.clock.ahead_ms += 1_000
    await failure(one, "m")
    assert one.runtime.loads == ["m", "m"]
    mesh.clock.ahead_ms += 2_000
    await one.node.janitor.tidy()
    assert (await status(one, "m")).status == ModelStatusInfo.NOT_LOADED


async def test_the_leader_alone_shows_what_there_is_in_the_mesh(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await register(one, "loaded")
    await one.bytes.request("loaded")
    await register(one, "idle")
    await register(one, "broken", "FAIL_broken")
    await failure(one, "broken")
    shown = [
        "modelmesh_models_managed_total 3.0",
        "modelmesh_models_loaded_total 1.0",
        "modelmesh_models_with_failure_total 1.0",
        "modelmesh_instance_leader 1.0",
    ]
    await until(lambda: set(shown) <= set(one.node.metrics.text().splitlines()))
    assert "modelmesh_models_" not in two.node.metrics.text()
    assert "modelmesh_instance_leader 0.0" in two.node.metrics.text()
    await one.node.leave()
    await until(lambda: "modelmesh_models_managed_total 3.0" in two.node.metrics.text())
    await until(lambda: "modelmesh_models_" not in one.node.metrics.text())


async def test_a_copy_counts_as_used_when_its_record_says_if_that_is_later(mesh: Mesh) -> None:
    """Else a load asked for with an old time would bring a model back only to be the first to go."""
    one = await mesh.add()
    await register(one, "m")
    await one.bytes.request("m")
    used = await last_used(one, "m")
    unloaded = one.node.loader.unload("m", why="test")
    assert unloaded is not None
    await unloaded
    await one.api.ensureLoaded(EnsureLoadedRequest(modelId="m", lastUsedTime=used - 3_600_000, sync=True))
    copy = one.node.loader.cache.get("m")
    assert copy is not None
    assert copy.last_used >= used

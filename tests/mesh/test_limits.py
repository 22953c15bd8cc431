"""What happens at the limits: full lines, full memory, models that misbehave, one failure after another."""

import asyncio
from collections.abc import Callable

import pytest
from grpc import StatusCode

from api.proto.model_mesh_pb2 import EnsureLoadedRequest, UnregisterModelRequest
from mesh import loading
from mesh.bytes import Route
from mesh.constraints import Requirement, TypeConstraints
from mesh.errors import MeshError, ModelNotFoundError, NoCapacityError
from store.records import Resources
from tests.mesh.conftest import Instance, Mesh
from tests.mesh.fake_bytes import Failed, FakeMiss
from tests.mesh.fake_runtime import FakeRuntime
from tests.mesh.test_node import code, failure, register
from tests.store.waiting import until


def learn(instance: Instance, load_ms: int) -> None:
    """Lets the instance have seen how long loads take."""
    instance.node.loader._admission._load_ms = load_ms


async def occupied(instance: Instance, *names: str) -> list["asyncio.Task[Route]"]:
    """Requests whose loads run until their gates open; those beyond the server's slots stand in line."""
    requests = []
    for name in names:
        instance.runtime.gates[name] = asyncio.Event()
        await register(instance, name)
        requests.append(asyncio.create_task(instance.bytes.request(name)))
    await until(lambda: instance.node.loader.pending == len(names))
    await until(lambda: len(instance.runtime.loading) == min(len(names), instance.runtime.load_slots))
    return requests


async def end(instance: Instance, requests: list["asyncio.Task[Route]"]) -> None:
    for gate in instance.runtime.gates.values():
        gate.set()
    await asyncio.gather(*requests)


async def test_a_request_whose_turn_would_come_too_late_is_refused_at_once_with_a_hint(mesh: Mesh) -> None:
    one = await mesh.add(runtime=FakeRuntime(load_slots=1, capacity=100_000))
    learn(one, 100)
    requests = await occupied(one, *(f"m{number}" for number in range(20)))
    await register(one, "late")
    failed = await failure(one, "late", deadline_ms=1_000)
    assert code(failed) is StatusCode.RESOURCE_EXHAUSTED
    assert "longer than the request can wait" in failed.message
    assert failed.retry_after_ms is not None
    assert failed.retry_after_ms >= 2_000, "about when the line is over"
    patient = asyncio.create_task(one.bytes.request("late", deadline_ms=60_000))
    await end(one, requests)
    assert await patient == Route("one", None)


async def test_a_patient_request_is_not_refused_for_the_hurry_of_another(mesh: Mesh) -> None:
    """Both ask before the load that they share has taken its place in line."""
    one = await mesh.add(runtime=FakeRuntime(load_slots=1, capacity=100_000))
    learn(one, 100)
    requests = await occupied(one, *(f"m{number}" for number in range(20)))
    await register(one, "late")
    now = mesh.clock()
    load = one.node.ensurer.load_here
    hurried = asyncio.create_task(load("late", last_used=now, urgent=True, deadline=now + 1_000))
    patient = asyncio.create_task(load("late", last_used=now, urgent=True, deadline=now + 60_000))
    await until(lambda: one.node.loader.pending == 21)
    with pytest.raises(NoCapacityError):
        await load("another", last_used=now, urgent=True, deadline=now + 1_000)
    await end(one, requests)
    await asyncio.gather(hurried, patient)


async def test_a_request_with_little_time_is_served_where_nobody_is_before_it(mesh: Mesh) -> None:
    one = await mesh.add(runtime=FakeRuntime(load_slots=1))
    learn(one, 100)
    await register(one, "m")
    assert await one.bytes.request("m", deadline_ms=90) == Route("one", None)


async def test_background_loads_do_not_use_up_a_requests_patience(mesh: Mesh) -> None:
    one = await mesh.add(runtime=FakeRuntime(load_slots=1, capacity=100_000))
    learn(one, 100)
    requests = await occupied(one, "first")
    for number in range(30):
        await register(one, f"m{number}")
        await one.api.ensureLoaded(EnsureLoadedRequest(modelId=f"m{number}"))
    await until(lambda: one.node.loader.pending == 31)
    await register(one, "m")
    request = asyncio.create_task(one.bytes.request("m", deadline_ms=1_000))
    await until(lambda: one.node.loader.pending == 32)
    await end(one, requests)
    await request


async def test_a_full_line_at_the_instance_with_room_is_told_to_the_caller(mesh: Mesh) -> None:
    """The refusal and its hint come back over the hop."""
    mesh.constraints = TypeConstraints({"t": Requirement(required=("two",))})
    one = await mesh.add("one")
    two = await mesh.add("two", FakeRuntime(load_slots=1, capacity=100_000), MM_LABELS="two")
    learn(two, 100)
    requests = await occupied(two, *(f"m{number}" for number in range(20)))
    await register(one, "late")
    failed = await failure(one, "late", deadline_ms=1_000)
    assert code(failed) is StatusCode.RESOURCE_EXHAUSTED
    assert failed.retry_after_ms is not None
    assert failed.retry_after_ms >= 2_000
    await end(two, requests)


async def test_a_model_that_turns_out_too_large_is_unloaded_and_not_loaded_again(mesh: Mesh) -> None:
    runtime = FakeRuntime(predicts=False)
    one = await mesh.add(runtime=runtime)
    await register(one, "small")
    await one.bytes.request("small")
    await register(one, "huge", "SIZE_10001_0_0")
    runtime.capacity += 10_001  # what the server itself can bear
    for _ in range(2):
        failed = await failure(one, "huge")
        assert code(failed) is StatusCode.RESOURCE_EXHAUSTED
        assert failed.retry_after_ms is None, "waiting does not help"
        assert "10001" in failed.message
    await until(lambda: runtime.unloads == ["huge"])
    assert runtime.loads == ["small", "huge"]
    assert "small" in one.bytes.models
    await until(lambda: one.node.loader.cache.in_use == Resources(1000))


async def test_a_model_larger_than_thought_pushes_out_no_more_than_it_must(mesh: Mesh) -> None:
    runtime = FakeRuntime(understates=True)
    one = await mesh.add(runtime=runtime)
    for name in "abc":
        await register(one, name, "SIZE_3000_0_0")
    for name in "abc":
        mesh.clock.ahead_ms += 10
        await one.bytes.request(name)
    await register(one, "larger", "SIZE_4000_0_0")
    runtime.capacity += 3_000  # what the server itself can bear
    mesh.clock.ahead_ms += 10
    await one.bytes.request("larger")
    await until(lambda: runtime.unloads == ["a"])
    await until(lambda: one.node.loader.cache.in_use == Resources(10_000))


async def test_a_size_once_measured_is_planned_with(mesh: Mesh) -> None:
    one = await mesh.add(runtime=FakeRuntime(understates=True))
    await register(one, "m", "SIZE_9000_0_0")
    await one.bytes.request("m")
    await until(lambda: one.node.registry.peek("m").size == Resources(9000))  # type: ignore[union-attr]
    task = one.node.loader.unload("m", why="test")
    assert task is not None
    await task
    await register(one, "other", "SIZE_5000_0_0")
    await one.bytes.request("other")
    await one.bytes.request("m")
    assert one.runtime.unloads == ["m", "other"], "there was no room for what it really needs"


async def test_a_model_wanted_again_while_it_is_unloaded_waits_for_that(mesh: Mesh) -> None:
    one = await mesh.add(runtime=FakeRuntime(capacity=10_000))
    await register(one, "a", "SIZE_8000_0_50")
    await register(one, "b", "SIZE_8000_0_0")
    await one.bytes.request("a")
    others = asyncio.create_task(one.bytes.request("b"))
    await until(lambda: one.runtime.unloads == ["a"])
    await asyncio.gather(others, one.bytes.request("a"))
    assert one.runtime.loads[:2] == ["a", "b"]


async def test_memory_that_the_server_keeps_is_not_counted_on_until_it_is_free(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "UNLOAD_RETRY_SECONDS", 0.01)
    one = await mesh.add(runtime=FakeRuntime(stuck={"a"}))
    for name in ("a", "b"):
        await register(one, name, "SIZE_5000_0_0")
        await one.bytes.request(name)
    await one.api.unregisterModel(UnregisterModelRequest(modelId="a"))
    await until(lambda: one.node.loader.cache.usable == Resources(5000))
    await register(one, "c", "SIZE_5000_0_0")
    await one.bytes.request("c")
    assert "b" not in one.bytes.models, "half of the memory is lost"
    one.runtime.stuck.clear()
    await until(lambda: one.node.loader.cache.usable == Resources(10_000))
    await one.bytes.request("b")
    assert set(one.bytes.models) == {"b", "c"}


async def test_a_load_does_not_wait_for_ever_for_memory_that_never_comes(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "SPACE_SECONDS", 0.05)
    one = await mesh.add(runtime=FakeRuntime(stuck={"a"}))
    await register(one, "a", "SIZE_8000_0_0")
    await register(one, "b", "SIZE_8000_0_0")
    await one.bytes.request("a")
    failed = await failure(one, "b")
    assert code(failed) is StatusCode.RESOURCE_EXHAUSTED
    assert "has not freed" in failed.message
    record = one.node.registry.peek("b")
    assert record is not None
    assert record.failed == {}, "the model is not at fault"
    assert one.runtime.loads == ["a"]


async def test_a_cancelled_load_is_unloaded_wherever_it_was(mesh: Mesh) -> None:
    one = await mesh.add(runtime=FakeRuntime(load_slots=1))
    requests = await occupied(one, "running", "queued")
    for name in ("queued", "running"):
        await one.api.unregisterModel(UnregisterModelRequest(modelId=name))
    outcomes = await asyncio.gather(*requests, return_exceptions=True)
    assert all(isinstance(outcome, Failed) for outcome in outcomes)
    await until(lambda: one.runtime.unloads == ["running"])
    await until(lambda: one.node.loader.cache.in_use == one.node.loader.cache.promised == Resources(0))
    assert one.runtime.loads == ["running"], "the server was never asked for the other"


async def test_a_failed_load_is_tried_on_three_instances_and_no_more(mesh: Mesh) -> None:
    instances = [await mesh.add(name) for name in ("one", "two", "three", "four")]
    await register(instances[0], "m", "FAIL_broken")
    for _ in range(2):
        failed = await failure(instances[0], "m")
        assert failed.message == "FAILED_PRECONDITION: broken"
    assert sum(len(instance.runtime.loads) for instance in instances) == 3


async def test_a_load_hop_never_hops_on(mesh: Mesh) -> None:
    """An instance that was chosen loads the model itself or says why not, even with room elsewhere."""
    one = await mesh.add("one")
    two = await mesh.add("two", FakeRuntime(capacity=2_000))
    await register(one, "m", "SIZE_5000_0_0")
    with pytest.raises(NoCapacityError):
        await one.node.peers.load(two.address, "m", last_used=1, urgent=True, patience_ms=None)
    assert (one.runtime.loads, two.runtime.loads) == ([], [])


async def test_a_copy_that_serves_is_found_without_those_that_failed(mesh: Mesh) -> None:
    one, two, three = [await mesh.add(name) for name in ("one", "two", "three")]
    await register(one, "m")
    await one.node.ensurer.load_here("m", last_used=1, urgent=True)
    await two.node.ensurer.load_here("m", last_used=1, urgent=True)
    await until(lambda: len(three.bytes.models.get("m", ())) == 2)
    assert await three.bytes.request("m", excluded=["one"]) == Route("two", two.address)
    assert await three.bytes.request("m", excluded=["one", "two"]) == Route("three", None)
    assert (one.runtime.loads, two.runtime.loads, three.runtime.loads) == (["m"], ["m"], ["m"])


async def test_without_the_registry_a_cold_model_is_an_honest_error_and_soon_works_again(mesh: Mesh) -> None:
    """The original had a fast failure for this, on a branch that was never reached."""
    one = await mesh.add()
    await register(one, "m")
    mesh.store.set_available(False)
    outcome = (await asyncio.gather(one.bytes.request("m"), return_exceptions=True))[0]
    if isinstance(outcome, Failed):
        assert code(outcome) is StatusCode.UNAVAILABLE
        assert outcome.retry_after_ms is not None
    else:
        assert outcome == Route("one", None)
    mesh.store.set_available(True)
    assert await one.bytes.request("m") == Route("one", None)
    await until(lambda: "one" in one.node.registry.peek("m").loaded)  # type: ignore[union-attr]
    record = one.node.registry.peek("m")
    assert record is not None
    assert record.failed == {}


async def test_decisions_are_counted_by_their_reasons(mesh: Mesh) -> None:
    one = await mesh.add()
    await register(one, "m")
    await one.bytes.request("m")
    assert 'modelmesh_placement_total{reason="FREE_HERE"} 1.0' in one.node.metrics.text()


async def test_refusals_are_typed(mesh: Mesh) -> None:
    one = await mesh.add(runtime=FakeRuntime(load_slots=1, capacity=100_000))
    learn(one, 50)
    requests = await occupied(one, "a", "b", "c")
    with pytest.raises(MeshError) as caught:
        one.node.loader.check(urgent=True, deadline=mesh.clock() + 1)
    assert isinstance(caught.value, NoCapacityError)
    one.node.loader.check(urgent=True)
    await end(one, requests)


async def test_a_failed_load_is_told_as_it_is_although_it_cannot_be_registered(mesh: Mesh) -> None:
    one = await mesh.add()
    one.runtime.gates["m"] = asyncio.Event()
    await register(one, "m", "FAIL_broken")
    request = asyncio.create_task(failure(one, "m"))
    await until(lambda: one.runtime.loads == ["m"])
    mesh.store.set_available(False)
    one.runtime.gates["m"].set()
    failed = await request
    mesh.store.set_available(True)
    assert failed.message == "FAILED_PRECONDITION: broken"


async def test_the_connection_to_an_instance_that_has_gone_is_closed(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await register(one, "m")
    await one.node.peers.load(two.address, "m", last_used=1, urgent=True, patience_ms=None)
    assert two.address in one.node.peers._channels
    await two.stop()
    await until(lambda: two.address not in one.node.peers._channels)


async def test_a_server_is_not_asked_for_sizes_of_models_that_it_cannot_hold(mesh: Mesh) -> None:
    mesh.constraints = TypeConstraints({"t": Requirement(required=("two",))})
    one, two = await mesh.add("one"), await mesh.add("two", MM_LABELS="two")
    await register(one, "m")
    assert await one.bytes.request("m") == Route("two", two.address)
    assert (one.runtime.predicted, two.runtime.predicted) == ([], ["m"])


def what_the_client_sees(error: Exception) -> StatusCode:
    return error.code if isinstance(error, MeshError) else StatusCode.INTERNAL


def only_unknown_models_are_understood(error: Exception) -> StatusCode:
    """The original's rule, its condition inverted: the branch for a lost registry runs for unknown models."""
    return what_the_client_sees(error) if isinstance(error, ModelNotFoundError) else StatusCode.INTERNAL


async def test_a_lost_registry_is_told_as_such(mesh: Mesh) -> None:
    one = await mesh.add()
    mesh.store.set_available(False)
    with pytest.raises(MeshError) as caught:
        await one.node.ensurer.ensure("unknown here", last_used=1, urgent=True)
    mesh.store.set_available(True)

    def check(rule: Callable[[Exception], StatusCode]) -> None:
        assert rule(caught.value) is StatusCode.UNAVAILABLE

    check(what_the_client_sees)
    with pytest.raises(AssertionError):
        check(only_unknown_models_are_understood)


class JoinedMiss(FakeMiss):
    """A request without patience, which one with much has joined by the time it is refused."""

    lefts = iter((10, 60_000, 60_000))

    @property
    def deadline_ms(self) -> int:  # type: ignore[override]
        return next(self.lefts, 60_000)

    @deadline_ms.setter
    def deadline_ms(self, value: int | None) -> None:
        """Has no say."""


async def test_the_most_patient_of_the_waiting_requests_decides(mesh: Mesh) -> None:
    one = await mesh.add(runtime=FakeRuntime(load_slots=1, capacity=100_000))
    learn(one, 100)
    requests = await occupied(one, "a", "b", "c")
    await register(one, "m")
    miss = JoinedMiss("m", False, "m", [], None, None, asyncio.get_running_loop().create_future())  # noqa: FBT003
    served = asyncio.create_task(one.node.misses._serve(miss))
    await until(lambda: one.node.loader.pending == 4)
    await end(one, requests)
    await served

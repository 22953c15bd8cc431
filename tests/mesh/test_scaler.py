"""Copies come and go by themselves: the node with fake model servers, on a clock that a test puts forward."""

import asyncio

import pytest
from grpc.aio import AioRpcError
from msgspec.structs import replace

from api.proto.model_mesh_pb2 import ModelPolicy, ModelStatusInfo
from mesh.bytes import Route
from mesh.constraints import Requirement, TypeConstraints
from mesh.scaling import MINUTE_MS
from tests.mesh.conftest import Instance, Mesh
from tests.mesh.test_node import register, status
from tests.mesh.test_vmodels import set_vmodel
from tests.store.waiting import until


async def loaded(instance: Instance, name: str, path: str = "SIZE_1000_0_0") -> None:
    await register(instance, name, path)
    await instance.bytes.request(name)


async def used(mesh: Mesh, instance: Instance, name: str, *, requests: int = 1) -> None:
    instance.bytes.used[name] = (requests, mesh.clock())
    instance.node._note_use()


def places(instance: Instance, name: str) -> set[str]:
    record = instance.node.registry.peek(name)
    return set(record.loaded) if record else set()


async def test_a_model_in_use_over_a_while_is_on_two_instances(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await loaded(one, "m")
    await loaded(one, "other")
    for _ in range(9):
        mesh.clock.ahead_ms += MINUTE_MS
        await used(mesh, one, "m", requests=100)
        await one.node.scaler.grow()
        await one.node.scaler.settled()
    await until(lambda: places(one, "m") == {"one", "two"})
    assert places(one, "other") == {"one"}
    assert two.runtime.loads == ["m"]
    assert one.runtime.unloads == []


async def test_a_model_with_many_requests_gets_more_copies_at_once(mesh: Mesh) -> None:
    one = await mesh.add("one", MM_SCALEUP_RPM_THRESHOLD="100")
    others = [await mesh.add(name) for name in ("two", "three")]
    await loaded(one, "m")
    mesh.clock.ahead_ms += MINUTE_MS
    await used(mesh, one, "m", requests=250)
    await one.node.scaler.grow()
    await one.node.scaler.settled()
    assert places(one, "m") == {"one", "two", "three"}
    assert [other.runtime.loads for other in others] == [["m"], ["m"]]


async def test_a_model_has_as_many_copies_as_it_shall_always_have(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await register(one, "m", "SIZE_1000_0_0")
    await one.node.registry.update("m", lambda record: record and replace(record, min_copies=2))
    await until(lambda: "m" in two.node.registry.models)
    await two.node.scaler.keep()
    assert places(one, "m") == set(), "that is for the leader to do"
    await one.node.scaler.keep()
    await one.node.scaler.settled()
    assert places(one, "m") == {"one", "two"}


async def test_a_copy_that_is_given_up_leaves_the_other_one_and_is_not_registered_again(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await loaded(one, "m")
    await one.node.ensurer.add_copies("m", 1, last_used=mesh.clock())
    assert await one.node.scaler.give_up("m", "test")
    await until(lambda: one.runtime.unloads == ["m"])
    assert places(one, "m") == {"two"}
    assert one.bytes.models["m"] == [Route("two", two.address)]
    await until(lambda: places(two, "m") == {"two"})
    assert not await two.node.scaler.give_up("m", "test"), "it is the last one"
    assert two.runtime.unloads == []


async def test_a_model_keeps_the_copies_that_it_shall_have_when_two_are_given_up_at_once(mesh: Mesh) -> None:
    one, two, three = [await mesh.add(name) for name in ("one", "two", "three")]
    await loaded(one, "m")
    await one.node.ensurer.add_copies("m", 2, last_used=mesh.clock())
    await one.node.registry.update("m", lambda record: record and replace(record, min_copies=2))
    await until(lambda: len(places(two, "m")) == len(places(three, "m")) == 3)
    went = await asyncio.gather(*(each.node.scaler.give_up("m", "test") for each in (one, two, three)))
    assert sorted(went) == [False, False, True]


async def test_of_two_instances_that_give_up_a_copy_at_once_one_keeps_it(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await loaded(one, "m")
    await one.node.ensurer.add_copies("m", 1, last_used=mesh.clock())
    await until(lambda: places(two, "m") == {"one", "two"})
    went = await asyncio.gather(one.node.scaler.give_up("m", "test"), two.node.scaler.give_up("m", "test"))
    assert sorted(went) == [False, True]
    await until(lambda: len(places(one, "m")) == 1)


async def test_where_memory_is_short_idle_second_copies_go(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await loaded(one, "m", "SIZE_2000_0_0")
    await one.node.ensurer.add_copies("m", 1, last_used=mesh.clock())
    mesh.clock.ahead_ms += 2 * MINUTE_MS
    for number in range(8):
        await loaded(one, f"a{number}")
        await two.node.ensurer.load_here(f"a{number}", last_used=mesh.clock(), urgent=True)
    await until(lambda: one.node.ensurer.suitable("t")[0].free.memory == 0)
    mesh.clock.ahead_ms += MINUTE_MS
    for instance in (one, two):
        await instance.node.presence.publish_now()
    await until(
        lambda: all(row.value.used.memory == 10_000 for _, row in one.node.registry.instances.items())
    )
    for instance in (one, two):
        await instance.node.scaler.shrink()
    await until(lambda: len(places(one, "m")) == 1)


async def test_an_instance_that_joins_takes_over_its_share_of_what_is_used(mesh: Mesh) -> None:
    one = await mesh.add("one")
    names = [f"m{number}" for number in range(8)]
    for name in names:
        mesh.clock.ahead_ms += 1_000
        await loaded(one, name)
    two = await mesh.add("two")
    await one.node.scaler.spread()
    assert sorted(two.runtime.loads) == ["m1", "m3", "m5", "m7"]
    for name in names:
        assert places(one, name) == ({"two"} if name in two.runtime.loads else {"one"})
    await until(lambda: sorted(one.runtime.unloads) == ["m1", "m3", "m5", "m7"])
    await one.node.presence.publish_now()
    await two.node.presence.publish_now()
    await one.node.scaler.spread()
    await two.node.scaler.spread()
    assert len(one.runtime.loads) + len(two.runtime.loads) == 12, "and then nothing moves any more"


async def test_a_pinned_set_that_cannot_fit_is_refused_with_a_reason_in_the_status(mesh: Mesh) -> None:
    one = await mesh.add("one")
    for name in ("a", "b"):
        await register(one, name, "SIZE_6000_0_0", policy=ModelPolicy(pinned=True))
        await one.node.scaler.keep()
        await one.node.scaler.settled()
    assert places(one, "a") == {"one"}
    await until(lambda: bool(one.node.registry.peek("b").shortfall))  # type: ignore[union-attr]
    info = await status(one, "b")
    assert info.status == ModelStatusInfo.LOADING_FAILED
    assert "what is here is pinned" in info.errors[0]
    assert one.runtime.unloads == []
    await register(one, "a", "SIZE_6000_0_0", policy=ModelPolicy())
    mesh.clock.ahead_ms += MINUTE_MS
    await one.node.scaler.keep()
    await one.node.scaler.settled()
    assert places(one, "b") == {"one"}
    await one.node.scaler.keep()
    await until(lambda: not one.node.registry.peek("b").shortfall)  # type: ignore[union-attr]
    assert list((await status(one, "b")).errors) == []


async def test_wishes_come_with_a_vmodel_and_stay_until_others_come(mesh: Mesh) -> None:
    one = await mesh.add("one")
    await set_vmodel(one, "m1", sync=True, policy=ModelPolicy(minCopies=1, maxCopies=3, priority=7))
    for wishes in (None, ModelPolicy(minCopies=1, maxCopies=3, priority=7)):
        await set_vmodel(one, "m1", sync=True, policy=wishes)
        record = one.node.registry.peek("m1")
        assert record is not None
        assert (record.min_copies, record.max_copies, record.priority, record.refs) == (1, 3, 7, 1)
    await set_vmodel(one, "m1", sync=True, policy=ModelPolicy())
    record = one.node.registry.peek("m1")
    assert record is not None
    assert (record.min_copies, record.max_copies, record.priority, record.refs) == (0, 0, 0, 1)
    with pytest.raises(AioRpcError, match="at least 3 and at most 2"):
        await set_vmodel(one, "m1", policy=ModelPolicy(minCopies=3, maxCopies=2))


async def test_what_has_to_make_room_is_loaded_where_there_is_some_unless_it_has_only_just_come(
    mesh: Mesh,
) -> None:
    mesh.constraints = TypeConstraints({"one": Requirement(required=("one",))})
    one, two = await mesh.add("one", MM_LABELS="one"), await mesh.add("two")
    for name, path in (("new", "SIZE_9000_0_0"), ("old", "SIZE_1000_0_0")):
        await register(one, name, path)
    await one.node.ensurer.load_here("new", last_used=mesh.clock(), urgent=True)
    await register(one, "large", "SIZE_9000_0_0", type_="one")
    await one.bytes.request("large")
    await one.node.scaler.settled()
    assert two.runtime.loads == []
    await one.node.ensurer.load_here("old", last_used=mesh.clock(), urgent=True)
    mesh.clock.ahead_ms += 2 * one.runtime.load_timeout_ms + 1
    await register(one, "larger", "SIZE_10000_0_0", type_="one")
    await one.bytes.request("larger")
    await until(lambda: two.runtime.loads == ["old"])


async def test_a_model_of_which_no_copies_are_wanted_any_more_is_not_short_of_them(mesh: Mesh) -> None:
    one = await mesh.add("one")
    await register(one, "m", "SIZE_20000_0_0", policy=ModelPolicy(pinned=True))
    await one.node.scaler.keep()
    await one.node.scaler.settled()
    await until(lambda: bool(one.node.registry.peek("m").shortfall))  # type: ignore[union-attr]
    await register(one, "m", "SIZE_20000_0_0", policy=ModelPolicy())
    assert (await status(one, "m")).status == ModelStatusInfo.NOT_LOADED

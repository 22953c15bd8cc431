"""An instance tells the others what may change a decision of theirs, and does not chatter."""

import math

import pytest
from msgspec.structs import replace

from mesh.presence import GAP_SECONDS, LONGEST_GAP_SECONDS, URGENT_GAP_SECONDS, gap
from store.records import INSTANCES, InstanceRecord, Resources
from tests.mesh.conftest import Instance, Mesh
from tests.mesh.test_node import register
from tests.store.waiting import until

SOME = InstanceRecord(
    address="a:1",
    lru_time=1_000_000,
    count=100,
    capacity=Resources(1_000),
    used=Resources(500),
    load_slots=4,
    loading=2,
    rpm=1_000,
    ready=True,
)


@pytest.mark.parametrize(
    ("change", "seconds"),
    [
        ({}, math.inf),
        ({"ready": False}, URGENT_GAP_SECONDS),
        ({"shutdown": True}, URGENT_GAP_SECONDS),
        ({"capacity": Resources(999)}, URGENT_GAP_SECONDS),
        ({"used": Resources(450)}, GAP_SECONDS),
        ({"used": Resources(549)}, LONGEST_GAP_SECONDS),
        ({"count": 110}, GAP_SECONDS),
        ({"count": 109}, LONGEST_GAP_SECONDS),
        ({"loading": 0}, GAP_SECONDS),
        ({"loading": 5}, GAP_SECONDS),
        ({"loading": 4}, LONGEST_GAP_SECONDS),
        ({"rpm": 1_100}, GAP_SECONDS),
        ({"rpm": 1_099}, LONGEST_GAP_SECONDS),
        ({"lru_time": 1_020_000}, GAP_SECONDS),
        ({"lru_time": 1_019_999}, LONGEST_GAP_SECONDS),
    ],
)
def test_the_more_a_change_matters_the_sooner_it_is_told(change: dict[str, object], seconds: float) -> None:
    assert gap(SOME, replace(SOME, **change)) == seconds


async def told(mesh: Mesh, instance: Instance) -> InstanceRecord:
    kv = mesh.store.get(instance.node.registry.instances.key("one"))
    assert kv is not None
    record, _ = INSTANCES.decode(kv.value)
    return record


async def test_what_is_told_is_what_is_so(mesh: Mesh) -> None:
    one = await mesh.add(MM_LABELS="b,a", MM_ZONE="z", MM_LOCATION="node", SERVICE_VERSION="v1")
    await register(one, "m", "SIZE_4000_0_0")
    await one.bytes.request("m")

    async def counts() -> bool:
        return (await told(mesh, one)).count == 1

    await until(counts)
    record = await told(mesh, one)
    assert (record.capacity, record.used, record.default_size) == (
        Resources(10_000),
        Resources(4_000),
        Resources(1_000),
    )
    assert (record.labels, record.zone, record.location, record.version) == (("a", "b"), "z", "node", "v1")
    assert (record.address, record.ready, record.shutdown, record.load_slots) == (one.address, True, False, 2)


async def test_nothing_is_told_twice(mesh: Mesh) -> None:
    one = await mesh.add()
    await one.node.presence.publish_now()
    assert one.node.presence.due_in() == math.inf


async def test_what_could_not_be_told_is_told_when_the_store_is_back(mesh: Mesh) -> None:
    one = await mesh.add(runtime=None)
    mesh.store.set_available(False)
    await one.runtime.crash()
    await one.node.guard.suspect()
    assert one.node.presence.due_in() < 1
    mesh.store.set_available(True)

    async def is_told() -> bool:
        return not (await told(mesh, one)).ready

    await until(is_told)


async def test_an_instance_that_leaves_says_so(mesh: Mesh) -> None:
    one = await mesh.add()
    await one.node.leave()
    assert (await told(mesh, one)).shutdown
    assert not one.bytes.ready

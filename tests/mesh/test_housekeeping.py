"""What got lost on the way between instances and the registry is put right."""

import asyncio

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from mesh import copies, housekeeping, janitor
from mesh.repair import Finding
from store.base import Put
from store.memory import MemoryStore
from store.records import MODELS, ModelRecord, Resources
from tests.mesh.conftest import Instance, Mesh
from tests.mesh.fake_runtime import FakeRuntime
from tests.mesh.test_node import register
from tests.mesh.test_vmodels import refs, set_vmodel
from tests.store.waiting import until

NEVER = 2**63 - 1


def record(instance: Instance, model_id: str) -> ModelRecord:
    found = instance.node.registry.peek(model_id)
    assert found is not None
    return found


async def rewrite(instance: Instance, model_id: str, **fields: object) -> None:
    """As a program that does not know better would."""
    raw = MODELS.encode(replace(record(instance, model_id), **fields))
    key = instance.node.registry.models.key(model_id)
    await instance.node.registry.store.txn([], [Put(key, raw)])


async def test_an_eviction_that_could_not_be_written_is_written_later(mesh: Mesh) -> None:
    one = await mesh.add()
    await register(one, "m")
    await one.bytes.request("m")
    mesh.store.set_available(False)
    unloaded = one.node.loader.unload("m", why="test")
    assert unloaded is not None
    with capture_logs() as logs:
        await unloaded
        await until(lambda: any(entry["event"] == "change not registered" for entry in logs))
    mesh.store.set_available(True)
    assert record(one, "m").instances
    assert await one.node.janitor.tidy() == [("m", Finding.NOT_HERE)]
    assert record(one, "m").instances == {}
    assert await one.node.janitor.tidy() == []


async def test_a_copy_whose_last_use_is_impossible_is_evicted_as_others_are(mesh: Mesh) -> None:
    one = await mesh.add()
    for name in ("bad", "good", "new"):
        await register(one, name, "SIZE_4000_0_0")
    for name in ("bad", "good"):
        await one.bytes.request(name)
    one.node.loader.cache.touch("bad", NEVER)
    assert ("bad", Finding.IMPOSSIBLE_USE) in await one.node.janitor.tidy()
    await one.bytes.request("new")
    assert set(one.bytes.models) == {"good", "new"}


async def test_a_pass_leaves_a_load_under_way_alone(mesh: Mesh) -> None:
    one = await mesh.add()
    await register(one, "m", "SIZE_1000_30_0")
    await one.node.models.want("m", last_used=0, sync=False)
    await until(lambda: one.runtime.loads == ["m"])
    assert await one.node.janitor.tidy() == []
    await one.bytes.request("m")
    assert one.runtime.loads == ["m"]


async def test_the_leader_corrects_impossible_times(mesh: Mesh) -> None:
    one = await mesh.add()
    for name in ("bad", "good"):
        await register(one, name)
    used = record(one, "good").last_used
    await rewrite(one, "bad", last_used=NEVER)
    await until(lambda: record(one, "bad").last_used == NEVER)
    await one.node.housekeeper.sweep()
    assert record(one, "bad").last_used < mesh.clock()
    assert record(one, "good").last_used == used


async def test_the_leader_corrects_references_that_stay_wrong(mesh: Mesh) -> None:
    one = await mesh.add()
    await set_vmodel(one, "m1", loadNow=False)
    await register(one, "leaked")
    await rewrite(one, "m1", refs=7)
    await rewrite(one, "leaked", refs=1, auto_delete=True)
    await until(lambda: refs(one, "m1") == 7 and refs(one, "leaked") == 1)
    await one.node.housekeeper.sweep()
    assert (refs(one, "m1"), refs(one, "leaked")) == (7, 1), "one table may be behind the other for a moment"
    await one.node.housekeeper.sweep()
    assert (refs(one, "m1"), refs(one, "leaked")) == (1, None)


async def test_references_of_a_vmodel_that_cannot_be_read_are_kept(mesh: Mesh) -> None:
    one = await mesh.add()
    await set_vmodel(one, "m1", loadNow=False)
    key = one.node.registry.vmodels.key("v")
    await MemoryStore(mesh.store).txn([], [Put(key, b"{ nonsense")])
    await until(lambda: one.node.registry.vmodels.corrupt == 1)
    for _ in range(3):
        await one.node.housekeeper.sweep()
    assert refs(one, "m1") == 1


async def test_free_room_is_filled_with_what_was_used_last(mesh: Mesh) -> None:
    one = await mesh.add(runtime=FakeRuntime(capacity=8_000, default_size=1_000))
    for age, name in enumerate(["newest", "newer", "new", "old"]):
        await register(one, name)
        await rewrite(one, name, last_used=mesh.clock() - (age + 1) * 1_000, size=Resources(1_000))
    await until(lambda: record(one, "old").size is not None)
    await one.node.housekeeper.sweep()
    await one.node.housekeeper.loaded_ahead()
    assert sorted(one.runtime.loads) == ["new", "newer", "newest"]
    assert record(one, "old").instances == {}


async def test_an_instance_record_without_a_lease_is_removed_and_its_copies_in_time(mesh: Mesh) -> None:
    one = await mesh.add()
    await register(one, "m")
    registry = one.node.registry
    await registry.store.txn([], [Put(registry.instances.key("ghost"), b'{"addr":"nowhere:1"}')])
    await registry.update("m", copies.claimed("ghost", mesh.clock(), mesh.clock()))
    await until(lambda: "ghost" in registry.instances)
    await one.node.housekeeper.prune()
    await until(lambda: "ghost" not in registry.instances)
    assert "one" in registry.instances
    await one.node.housekeeper.prune()
    mesh.clock.ahead_ms += 600_001
    await one.node.housekeeper.prune()
    assert record(one, "m").instances == {}


async def test_an_instance_that_comes_back_in_time_keeps_its_copies(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await register(two, "m")
    await two.node.ensurer.load_here("m", last_used=mesh.clock(), urgent=True)
    await until(lambda: "two" in record(one, "m").loaded)
    published = await two.node.registry.store.get(two.node.registry.instances.key("two"))
    assert published is not None
    await two.node.session.remove(published.key)
    await until(lambda: "two" not in one.node.registry.instances)
    await one.node.housekeeper.prune()
    mesh.clock.ahead_ms += 500_000
    await two.node.session.put(published.key, published.value)
    await one.node.housekeeper.prune()
    mesh.clock.ahead_ms += 500_000
    await one.node.housekeeper.prune()
    assert "two" in record(one, "m").loaded


async def test_records_that_cannot_be_read_are_counted_and_hurt_no_other(mesh: Mesh) -> None:
    one = await mesh.add()
    registry = one.node.registry
    for table in (registry.models, registry.vmodels, registry.instances):
        await MemoryStore(mesh.store).txn([], [Put(table.key("bad"), b"{ nonsense")])
    await register(one, "good")
    await until(lambda: "modelmesh_registry_corrupt_records 3.0" in one.node.metrics.text())
    await one.node.housekeeper.sweep()
    await one.node.housekeeper.prune()
    await one.node.janitor.tidy()
    assert await one.bytes.request("good")
    await register(one, "bad")
    assert await one.bytes.request("bad")
    await until(lambda: registry.corrupt == 1)


async def test_what_no_pass_expected_ends_neither_the_janitor_nor_the_leader(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await mesh.add()
    for module, name in (
        (janitor, "FIRST_SECONDS"),
        (janitor, "PERIOD_SECONDS"),
        (housekeeping, "PERIOD_SECONDS"),
    ):
        monkeypatch.setattr(module, name, 0.001)
    passes: list[str] = []

    def failing(name: str) -> object:
        async def work() -> None:
            passes.append(name)
            raise ValueError(name)

        return work

    monkeypatch.setattr(one.node.janitor, "tidy", failing("tidy"))
    monkeypatch.setattr(one.node.housekeeper, "prune", failing("prune"))
    runs = [asyncio.create_task(part.run()) for part in (one.node.janitor, one.node.housekeeper)]
    await until(lambda: passes.count("tidy") > 1 and passes.count("prune") > 1)
    for run in runs:
        run.cancel()
    await asyncio.gather(*runs, return_exceptions=True)


async def test_what_was_wanted_while_nobody_could_load_it_is_loaded_soon_after_somebody_can(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "JOINED_SECONDS", 0.1)
    one = await mesh.add(runtime=FakeRuntime(status=0))  # type: ignore[arg-type]
    now = mesh.clock()
    for name, hours in (("wanted", 1), ("registered", 6)):
        fields = ModelRecord(type="t", path="SIZE_1000_0_0", last_used=now - hours * 3_600_000)
        await one.node.registry.update(name, lambda _, fields=fields: fields)
    one.runtime.status = 1  # type: ignore[assignment]
    await until(lambda: one.runtime.loads == ["wanted"])

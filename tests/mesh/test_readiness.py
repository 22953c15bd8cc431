"""New instances become ready one after the other while old ones leave."""

import pytest

from mesh.readiness import Readiness
from store.memory import MemoryStore
from store.records import INSTANCES, InstanceRecord
from store.table import Table
from tests.mesh.conftest import Mesh
from tests.store.waiting import until

SERVING = InstanceRecord(ready=True)
LEAVING = InstanceRecord(ready=True, shutdown=True)


class Own:
    """An instance called "own" in a table that a test writes."""

    def __init__(self) -> None:
        self.table = Table(MemoryStore(), "/i/", INSTANCES)
        self.has_server = True
        self.leaving = False
        self.told: list[bool] = []
        self.readiness = Readiness(
            self.table,
            "own",
            server_is_ready=lambda: self.has_server,
            is_leaving=lambda: self.leaving,
            tell=self.told.append,
        )

    async def see(self, **others: InstanceRecord | None) -> None:
        for name, record in others.items():
            await self.table.write(name, record)


@pytest.fixture
async def own() -> Own:
    opened = Own()
    await opened.see(own=SERVING)
    return opened


async def test_it_waits_until_the_registry_is_read(own: Own) -> None:
    assert own.readiness.obstacle == "the registry is not read yet"
    own.readiness.start()
    assert own.readiness
    assert own.told == [True]


async def test_it_waits_until_nobody_is_leaving(own: Own) -> None:
    await own.see(old=LEAVING, older=LEAVING, other=SERVING)
    own.readiness.start()
    assert own.readiness.obstacle == "waiting until others have left: old, older"
    await own.see(old=None)
    assert not own.readiness
    await own.see(older=None)
    assert own.readiness
    assert own.told == [False, False, True]


async def test_it_waits_only_once(own: Own) -> None:
    own.readiness.start()
    await own.see(old=LEAVING, other=SERVING)
    assert own.readiness
    own.has_server = False
    own.readiness.changed()
    assert not own.readiness
    own.has_server = True
    own.readiness.changed()
    assert own.readiness
    assert own.told == [True, False, True]


async def test_it_has_not_waited_before_its_server_was_there(own: Own) -> None:
    own.has_server = False
    own.readiness.start()
    await own.see(old=LEAVING, other=SERVING)
    own.has_server = True
    own.readiness.changed()
    assert "old" in own.readiness.obstacle


@pytest.mark.parametrize("others", [{}, {"new": InstanceRecord()}, {"gone": LEAVING}])
async def test_it_does_not_wait_where_nobody_else_serves(own: Own, others: dict[str, InstanceRecord]) -> None:
    await own.see(old=LEAVING, **others)
    own.readiness.start()
    assert own.readiness


async def test_it_is_not_ready_when_it_leaves_itself(own: Own) -> None:
    own.readiness.start()
    own.leaving = True
    own.readiness.changed()
    assert own.told == [True, False]


async def test_a_rolling_update_goes_on_only_when_the_old_instance_is_gone(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await one.node.leave()
    await until(lambda: two.node.registry.instances.get("one").value.shutdown)  # type: ignore[union-attr]
    three = await mesh.add("three")
    await until(lambda: three.node.guard.terms is not None)
    assert not three.bytes.ready
    assert three.node.presence.record().ready, "models can be loaded there all the same"
    assert two.bytes.ready
    await one.node.stop(0)
    await until(lambda: three.bytes.ready)

"""An instance that leaves: its models are elsewhere before it stops to serve."""

import asyncio

from mesh.bytes import Route
from tests.mesh.conftest import Mesh
from tests.mesh.fake_runtime import FakeRuntime
from tests.mesh.test_node import register
from tests.mesh.test_scaler import loaded, places
from tests.store.waiting import until


async def test_copies_serve_until_others_have_them(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await loaded(one, "m")
    await until(lambda: two.bytes.models.get("m") == [Route("one", one.address)])
    two.runtime.gates["m"] = asyncio.Event()
    await one.node.leave()
    draining = asyncio.create_task(one.node.drain(10))
    await until(lambda: two.runtime.loads == ["m"])
    assert one.bytes.models["m"][0] == Route("one", None)
    assert two.bytes.models["m"] == [Route("one", one.address), Route("two", two.address, loaded=False)] or (
        two.bytes.models["m"] == [Route("one", one.address)]
    )
    two.runtime.gates["m"].set()
    await draining
    await until(lambda: two.bytes.models.get("m") == [Route("two", None)])
    assert one.runtime.unloads == []
    await one.node.stop(0)
    await until(lambda: places(two, "m") == {"two"})


async def test_what_was_used_last_is_handed_over_first_and_what_is_elsewhere_not_at_all(mesh: Mesh) -> None:
    one = await mesh.add("one")
    for name in "abcde":
        mesh.clock.ahead_ms += 1_000
        await loaded(one, name, "SIZE_1000_50_0")
    two = await mesh.add("two", FakeRuntime(load_slots=1))
    await two.node.ensurer.load_here("b", last_used=mesh.clock(), urgent=True)
    await until(lambda: places(one, "b") == {"one", "two"})
    await one.node.leave()
    await one.node.drain(10)
    assert sorted(two.runtime.loads[1:3]) == ["d", "e"]
    assert sorted(two.runtime.loads[3:]) == ["a", "c"]


async def test_the_time_to_hand_over_ends(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await loaded(one, "m")
    two.runtime.gates["m"] = asyncio.Event()
    await one.node.leave()
    async with asyncio.timeout(5):
        await one.node.drain(0.2)
    two.runtime.gates["m"].set()


async def test_nothing_is_loaded_on_an_instance_that_leaves_whoever_asks(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await register(one, "m")
    one.node.presence.leaving = True  # and two does not know
    assert await two.bytes.request("m") == Route("two", None)
    await register(one, "n")
    two.node.presence.leaving = False
    assert await one.bytes.request("n") == Route("two", two.address)
    assert one.runtime.loads == []


async def test_a_model_without_a_place_elsewhere_stays_until_the_end(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await loaded(one, "m")
    mesh.clock.ahead_ms += 1_000
    await two.node.ensurer.load_here("m", last_used=mesh.clock(), urgent=True)
    assert await two.node.scaler.give_up("m", "test")
    mesh.clock.ahead_ms += 1_000
    await register(one, "large", "SIZE_10000_0_0")
    await two.node.ensurer.load_here("large", last_used=mesh.clock(), urgent=True)
    await one.node.leave()
    await one.node.drain(5)
    assert two.runtime.loads == ["m", "large"], "everything there was used more recently"
    assert one.bytes.models["m"] == [Route("one", None)]

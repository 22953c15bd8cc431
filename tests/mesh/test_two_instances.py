"""Two instances are one cache."""

import asyncio
import math
from typing import Any

import pytest
from grpc import StatusCode

from api.proto.model_mesh_pb2 import EnsureLoadedRequest
from mesh.bytes import Route
from mesh.constraints import Requirement, TypeConstraints
from tests.mesh.conftest import Mesh
from tests.mesh.fake_bytes import Failed
from tests.mesh.fake_runtime import FakeRuntime
from tests.mesh.test_node import code, register, status
from tests.store.waiting import until

ONLY = TypeConstraints({name: Requirement(required=(name,)) for name in ("one", "two", "both")})


async def test_when_the_store_has_lost_its_content_peers_are_routed_to_all_the_time(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await register(two, "m")
    await two.bytes.request("m")
    record = two.node.registry.peek("m")
    assert record is not None
    holder, other = (one, two) if "one" in record.loaded else (two, one)
    await until(lambda: "m" in other.bytes.models)
    shown = []
    update = other.bytes.update

    def noted(generation: int, models: Any, aliases: Any) -> None:
        shown.extend(routes for model_id, routes in models.items() if model_id == "m")
        update(generation, models, aliases)

    other.bytes.update = noted  # type: ignore[method-assign]
    mesh.store.wipe()
    keys = one.node.registry.keys
    await until(lambda: len(mesh.store.range(keys.instances).items) == 2)
    await until(lambda: len(mesh.store.range(keys.models).items) == 1)
    await until(lambda: all(len(each.node.registry.instances) == 2 for each in (one, two)))
    assert shown
    assert all(shown), "a moment without a route has the model loaded a second time"
    assert (holder.runtime.loads, other.runtime.loads) == (["m"], [])


async def test_a_copy_on_the_other_instance_is_routed_to(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await register(one, "m")
    await one.bytes.request("m")
    await until(lambda: "m" in two.bytes.models)
    assert await two.bytes.request("m") == Route("one", one.address)
    assert two.runtime.loads == []


async def test_a_miss_is_placed_where_the_type_may_go(mesh: Mesh) -> None:
    mesh.constraints = ONLY
    one, two = await mesh.add("one", MM_LABELS="one,both"), await mesh.add("two", MM_LABELS="two,both")
    await register(one, "m", type_="two")
    assert await one.bytes.request("m") == Route("two", two.address)
    assert (one.runtime.loads, two.runtime.loads) == ([], ["m"])


async def test_a_full_instance_places_on_one_with_room(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    for name in ("a", "b"):
        await register(one, name, "SIZE_6000_0_0")
    await one.bytes.request("a")
    assert await one.bytes.request("b") == Route("two", two.address)
    assert one.runtime.unloads == []


async def test_to_note_a_use_elsewhere_is_not_to_fill_that_instance(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await register(one, "a", "SIZE_9000_0_0")
    await one.bytes.request("a")
    await register(two, "m", "SIZE_1000_0_0")
    await two.bytes.request("m")
    await until(lambda: "m" in one.bytes.models)
    for _ in range(20):
        await one.api.ensureLoaded(EnsureLoadedRequest(modelId="m", sync=True))
    await register(one, "n", "SIZE_4000_0_0")
    assert await one.bytes.request("n") == Route("two", two.address)
    assert one.runtime.unloads == []


async def test_requests_at_both_instances_share_one_load(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    one.runtime.gates["m"] = asyncio.Event()
    await register(one, "m")
    here = asyncio.create_task(one.bytes.request("m"))
    await until(lambda: one.runtime.loads == ["m"])
    await until(lambda: bool(two.node.routes.peers("m")))
    there = asyncio.create_task(two.bytes.request("m"))
    one.runtime.gates["m"].set()
    assert await here == Route("one", None)
    assert await there == Route("one", one.address)
    assert two.runtime.loads == []


async def test_a_load_that_fails_on_one_is_tried_on_the_other(mesh: Mesh) -> None:
    one = await mesh.add("one", FakeRuntime(capacity=900, default_size=100))
    two = await mesh.add("two")
    await register(one, "m", "SIZE_1000_0_0")
    assert await one.bytes.request("m") == Route("two", two.address)


async def test_when_all_fail_the_status_names_both(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await register(one, "m", "FAIL_broken")
    with pytest.raises(Failed) as caught:
        await one.bytes.request("m")
    assert code(caught.value) is StatusCode.FAILED_PRECONDITION
    assert caught.value.message == "FAILED_PRECONDITION: broken"
    assert (one.runtime.loads, two.runtime.loads) == (["m"], ["m"])
    info = await status(one, "m")
    assert {copy.location for copy in info.modelCopyInfos} == {"one", "two"}
    assert list(info.errors) == ["FAILED_PRECONDITION: broken"]


async def test_a_copy_that_failed_a_request_is_replaced_by_one_elsewhere(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await register(one, "m")
    await one.bytes.request("m")
    await until(lambda: "m" in two.bytes.models)
    assert await two.bytes.request("m", excluded=["one"]) == Route("two", None)


async def test_an_instance_that_leaves_takes_its_routes_along(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await register(one, "m")
    await one.bytes.request("m")
    await until(lambda: "m" in two.bytes.models)
    await one.stop()
    await until(lambda: "m" not in two.bytes.models)
    assert await two.bytes.request("m") == Route("two", None)


async def test_an_instance_without_a_server_has_its_models_loaded_elsewhere(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await register(one, "m")
    await one.bytes.request("m")
    await one.runtime.crash()
    one.bytes.models.pop("m", None)
    assert await one.bytes.request("m", excluded=["one"], failure="unavailable") == Route("two", two.address)


async def test_the_oldest_instance_leads_and_another_takes_over(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    assert one.node.registry.is_leader()
    assert not two.node.registry.is_leader()
    await one.stop()
    await until(two.node.registry.is_leader)


async def test_an_instance_that_vanished_is_forgotten_by_the_leader(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await register(one, "m", "SIZE_1000_0_0")
    await two.node.ensurer.load_here("m", last_used=mesh.clock(), urgent=True)
    await two.node.session.end()
    await until(lambda: "two" not in one.node.registry.instances)
    await until(lambda: all(route.instance_id != "two" for route in one.bytes.models.get("m", ())))
    await one.node.housekeeper.prune()
    mesh.clock.ahead_ms += 600_001
    await one.node.housekeeper.prune()
    record = one.node.registry.peek("m")
    assert record is not None
    assert "two" not in record.instances


async def test_to_ensure_that_a_model_is_loaded_is_to_use_it_wherever_its_copy_is(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await register(one, "m")
    await one.bytes.request("m")
    await until(lambda: "m" in two.bytes.models)
    for instance in (one, two):
        mesh.clock.ahead_ms += 60_000
        await instance.api.ensureLoaded(EnsureLoadedRequest(modelId="m", sync=True))
        copy = one.node.loader.cache.get("m")
        assert copy is not None
        assert mesh.clock() - copy.last_used < 60_000
    assert one.runtime.loads == ["m"]
    assert two.runtime.loads == []


async def test_a_load_that_was_asked_for_and_done_is_not_registered_anew(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await register(one, "m")
    await one.bytes.request("m")
    await until(lambda: "one" in two.node.registry.peek("m").loaded)  # type: ignore[union-attr]
    before = two.node.registry.models.get("m")
    await two.node.peers.load(one.address, "m", last_used=mesh.clock(), urgent=False, patience_ms=None)
    after = await two.node.registry.models.fetch("m")
    assert before is not None
    assert after is not None
    assert before.mod_revision == after.mod_revision


async def test_a_lost_copy_is_loaded_again_where_it_was_if_it_may_be_nowhere_else(mesh: Mesh) -> None:
    mesh.constraints = TypeConstraints({"t": Requirement(required=("two",))})
    one, two = await mesh.add("one"), await mesh.add("two", MM_LABELS="two")
    await register(one, "m")
    await one.bytes.request("m")
    two.node.loader.unload("m", why="test")  # its server does not know the model any more
    assert await one.bytes.request("m", excluded=["two"]) == Route("two", two.address)
    assert two.runtime.loads == ["m", "m"]


async def test_what_is_asked_for_within_moments_goes_only_where_there_is_room_for_all_of_it(
    mesh: Mesh,
) -> None:
    """Records of the others do not show yet what was loaded there a moment ago."""
    mesh.constraints = TypeConstraints({"t": Requirement(required=("other",))})
    one = await mesh.add("one")
    others = [await mesh.add(name, MM_LABELS="other") for name in ("two", "three")]
    for other in others:
        other.node.presence.due_in = lambda: math.inf  # type: ignore[method-assign]
    names = [f"m{number}" for number in range(18)]
    for name in names:
        await register(one, name)
        await one.bytes.request(name)
    assert sorted(others[0].runtime.loaded | others[1].runtime.loaded) == sorted(names)
    assert others[0].runtime.unloads == others[1].runtime.unloads == []


async def test_registered_models_are_loaded_here_and_elsewhere_while_the_registry_is_away(mesh: Mesh) -> None:
    mesh.constraints = TypeConstraints({"two": Requirement(required=("two",))})
    one, two = await mesh.add("one"), await mesh.add("two", MM_LABELS="two")
    await register(one, "here")
    await register(one, "there", type_="two")
    await until(lambda: {"here", "there"} <= {name for name, _ in two.node.registry.models.items()})
    mesh.store.set_available(False)
    assert await two.bytes.request("here") in {Route("two", None), Route("one", one.address)}
    assert await one.bytes.request("there") == Route("two", two.address)
    assert await two.bytes.request("there") == Route("two", None)
    mesh.store.set_available(True)
    for instance in (one, two):
        await instance.node.janitor.tidy()
    await until(lambda: one.node.registry.peek("there").loaded.keys() == {"two"})  # type: ignore[union-attr]
    assert one.bytes.models["there"] == [Route("two", two.address)]
    assert two.runtime.loads.count("there") == 1

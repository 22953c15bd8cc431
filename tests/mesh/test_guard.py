"""A server's end is noticed once."""

import asyncio
from typing import Any, cast

import pytest
from msgspec.structs import replace

from mesh import guard as guarding
from mesh import housekeeping
from mesh import runtime as spi
from mesh.guard import RuntimeGuard
from mesh.runtime import Runtime, RuntimeTerms
from store.records import Resources
from tests.mesh.conftest import Mesh
from tests.mesh.fake_runtime import FakeRuntime
from tests.mesh.test_node import register
from tests.mesh.test_scaler import loaded, places
from tests.store.waiting import until


class SlowProbes:
    """A server that is ready whenever it is asked to be; probes of it end when told."""

    knows_session = False
    silent = 0

    def __init__(self) -> None:
        self.probes: list[asyncio.Future[bool]] = []

    async def ready(self) -> RuntimeTerms:
        return RuntimeTerms(Resources(100), 2, 10.0, Resources(10), "1", {}, allow_any_method=True)

    async def disconnected(self) -> None:
        await asyncio.Event().wait()

    async def alive(self) -> bool:
        self.probes.append(asyncio.get_running_loop().create_future())
        return await self.probes[-1]


class Losses:
    """Counts the servers that were given up."""

    count = 0

    def resume(self, _: RuntimeTerms) -> None:
        return

    def suspend(self) -> list[tuple[str, int]]:
        self.count += 1
        return []


async def test_a_probe_of_a_server_that_was_replaced_says_nothing_of_the_new_one() -> None:
    server, losses = SlowProbes(), Losses()
    guard = RuntimeGuard(
        cast("Runtime", server), cast("Any", losses), on_ready=lambda _: None, on_lost=lambda _: None
    )
    running = asyncio.create_task(guard.run())
    await guard.wait_ready()
    doubts = [asyncio.create_task(guard.suspect()) for _ in range(2)]
    await until(lambda: len(server.probes) == 2)
    server.probes[0].set_result(False)
    await until(lambda: losses.count == 1 and guard.terms is not None)
    server.probes[1].set_result(False)
    assert await asyncio.gather(*doubts) == [True, True]
    assert losses.count == 1
    assert guard.terms is not None
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_server_that_restarted_is_noticed_by_itself_and_has_its_models_again(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarding, "PROBE_SECONDS", 1_000.0)  # so that only the connection can tell
    one = await mesh.add("one")
    for name in ("a", "b"):
        await loaded(one, name)
    await asyncio.sleep(0)
    await one.runtime.crash()
    await one.runtime.start()
    await until(lambda: sorted(one.runtime.loads) == ["a", "a", "b", "b"])
    await until(lambda: set(one.bytes.models) == {"a", "b"})


async def test_a_server_that_lost_its_models_and_not_its_connections_is_noticed_too(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarding, "PROBE_SECONDS", 0.1)
    one = await mesh.add("one")
    await loaded(one, "m")
    one.runtime.loaded.clear()
    await until(lambda: one.runtime.loads == ["m", "m"])


async def test_a_single_model_that_the_server_lost_goes_alone(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarding, "PROBE_SECONDS", 0.1)
    one = await mesh.add("one")
    for name in ("a", "b"):
        await loaded(one, name)
    del one.runtime.loaded["a"]
    await until(lambda: set(one.bytes.models) == {"b"})
    assert one.node.guard.terms is not None


async def test_a_healthy_server_that_is_asked_loses_nothing(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarding, "PROBE_SECONDS", 0.01)
    one = await mesh.add("one")
    await loaded(one, "m")
    asked = 0
    holds = one.node.guard._runtime.holds

    async def counted(model_id: str) -> bool | None:
        nonlocal asked
        asked += 1
        return await holds(model_id)

    monkeypatch.setattr(one.node.guard._runtime, "holds", counted)
    await until(lambda: asked > 5)
    assert one.runtime.loads == ["m"]
    assert "m" in one.bytes.models


@pytest.mark.parametrize("knows_sessions", [False, True])
async def test_a_server_that_accepts_calls_and_answers_none_is_as_good_as_gone(
    mesh: Mesh,
    monkeypatch: pytest.MonkeyPatch,
    knows_sessions: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr(guarding, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(guarding, "ASK_SECONDS", 0.05)
    monkeypatch.setattr(spi, "HOLDS_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(spi, "STATUS_TIMEOUT_SECONDS", 0.5)
    one, two = await mesh.add("one", FakeRuntime(knows_sessions=knows_sessions)), await mesh.add("two")
    await loaded(one, "m")
    one.runtime.answering.clear()
    await until(lambda: one.node.guard.terms is None)
    await until(lambda: places(two, "m") == {"two"})
    one.runtime.answering.set()
    await until(lambda: one.node.guard.terms is not None)


async def test_questions_asked_together_and_not_answered_in_time_count_once(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one slow moment of a busy server would cost it all of its models."""
    monkeypatch.setattr(guarding, "PROBE_SECONDS", 1_000.0)
    monkeypatch.setattr(spi, "HOLDS_TIMEOUT_SECONDS", 0.05)
    one = await mesh.add("one")
    for name in ("a", "b", "c"):
        await loaded(one, name)
    runtime = one.node.guard._runtime
    one.runtime.answering.clear()
    await one.node.guard._look_for_models()
    assert runtime.silent == 1
    await one.node.guard._look_for_models()
    assert runtime.silent == 2
    one.runtime.answering.set()
    assert await runtime.holds("a")
    assert runtime.silent == 0
    assert one.runtime.loads == ["a", "b", "c"]


async def test_a_leader_that_goes_leaves_what_it_was_about_to_bring_back_to_the_next(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "JOINED_SECONDS", 1_000.0)  # it would load ahead what nobody has
    one, two, three = [await mesh.add(name) for name in ("one", "two", "three")]
    await register(three, "m")
    await three.node.ensurer.load_here("m", last_used=mesh.clock(), urgent=True)
    await until(lambda: places(one, "m") == places(two, "m") == {"three"})
    await three.node.session.end()  # as its lease ends
    await until(lambda: "three" not in one.node.registry.instances)
    await one.stop()
    await until(lambda: two.runtime.loads == ["m"])
    assert one.runtime.loads == []


async def test_models_of_an_instance_that_died_are_loaded_elsewhere_at_once(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await loaded(two, "m")
    await loaded(two, "old")
    await one.node.registry.update(
        "old", lambda record: record and replace(record, last_used=mesh.clock() - 8 * 3_600_000)
    )
    await two.node.session.end()  # as its lease ends
    await until(lambda: one.runtime.loads == ["m"])
    await until(lambda: "one" in places(one, "m"))
    assert "one" not in places(one, "old")

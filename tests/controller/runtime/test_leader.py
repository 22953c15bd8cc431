"""Elections on a clock that stands still unless somebody waits; each process has its own waiting."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from api.core import CONFIG_MAP, LEASE, ConfigMap
from controller.runtime import Controller, LeadershipLostError, LeaseLock, Manager, Request, Result
from controller.runtime.apiserver import Core, MemoryClient
from controller.runtime.errors import TransportError
from controller.runtime.fence import FencedClient, WriteRefusedError
from controller.runtime.leader import Leadership, boot_time

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from controller.runtime.client import JSON


class Clock:
    """Time moves when a process waits, and when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.naps = 0

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.naps += 1
        self.now += seconds
        await asyncio.sleep(0)


class Flaky(MemoryClient):
    """A client whose next writes fail, before or after they were done, or take long."""

    def __init__(self, core: Core, clock: Clock) -> None:
        super().__init__(core)
        self._clock = clock
        self.lose_answers = 0
        self.fail = 0
        self.slow = 0.0
        self.replaced = 0

    async def replace(self, resource: Any, obj: JSON, *, subresource: str = "") -> JSON:
        self.replaced += 1
        if self.fail:
            self.fail -= 1
            raise TransportError("connection refused")
        answer = await super().replace(resource, obj, subresource=subresource)
        self._clock.now += self.slow
        if self.lose_answers:
            self.lose_answers -= 1
            raise TransportError("the answer got lost")
        return answer


@pytest.fixture
def core() -> Core:
    return Core(namespaces=("ns",))


@pytest.fixture
def own_clock() -> Clock:
    return Clock()


@pytest.fixture
def process(core: Core, own_clock: Clock) -> Callable[[str], Leadership]:
    def make(identity: str, clock: Clock = own_clock) -> Leadership:
        client = Flaky(core, clock)
        return Leadership(client, LeaseLock("lock", "ns", identity), clock=clock.time, sleep=clock.sleep)

    return make


async def _lease(core: Core) -> JSON:
    return (await MemoryClient(core).get(LEASE, "lock", "ns"))["spec"]


async def test_the_first_process_leads_and_says_so(core: Core, process: Any) -> None:
    await process("one").acquire()
    spec = await _lease(core)
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("one", 15, 0)
    assert dt.datetime.fromisoformat(spec["renewTime"]).tzinfo is not None


async def test_another_takes_over_a_lease_duration_after_the_last_news_and_not_sooner(
    core: Core, process: Any, own_clock: Clock
) -> None:
    await process("one").acquire()
    before = own_clock.now
    await process("two").acquire()
    assert 15 < own_clock.now - before <= 15 + 2 * 2.4
    spec = await _lease(core)
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("two", 1)


async def test_renewals_keep_others_waiting(core: Core, process: Any) -> None:
    mine, theirs = Clock(), Clock()
    holder = process("one", mine)
    await holder.acquire()
    holding = asyncio.create_task(holder.hold())
    waiting = asyncio.create_task(process("two", theirs).acquire())
    while theirs.naps < 100:  # noqa: ASYNC110 -- naps of the fake clock
        await asyncio.sleep(0)
    assert not waiting.done()
    assert (await _lease(core))["holderIdentity"] == "one"
    for task in (holding, waiting):
        task.cancel()
    await asyncio.gather(holding, waiting, return_exceptions=True)


async def test_a_holder_gives_up_at_its_deadline_before_others_may_take_over(
    process: Any, own_clock: Clock
) -> None:
    holder = process("one")
    await holder.acquire()
    acquired = own_clock.now
    holder._client.fail = 1000
    with pytest.raises(LeadershipLostError, match="ns/lock was not renewed within 10"):
        await holder.hold()
    assert own_clock.now - acquired == pytest.approx(10.0)


async def test_a_process_that_was_suspended_gives_up_without_another_request(
    process: Any, own_clock: Clock
) -> None:
    holder = process("one")
    await holder.acquire()
    own_clock.now += 60
    requests = holder._client.replaced
    with pytest.raises(LeadershipLostError):
        await holder.hold()
    assert holder._client.replaced == requests


async def test_a_renewal_counts_from_when_it_was_sent(process: Any, own_clock: Clock) -> None:
    holder = process("one")
    await holder.acquire()
    holder._client.slow = 9.0
    assert await holder._attempt(10)
    assert holder.remaining == pytest.approx(1.0)
    own_clock.now += 2
    assert holder.remaining < 0


async def test_a_renewal_whose_answer_got_lost_is_found_to_be_ours(process: Any) -> None:
    holder = process("one")
    await holder.acquire()
    holder._client.lose_answers = 1
    assert not await holder._attempt(10)  # done, but unknown
    assert not await holder._attempt(10)  # conflicts with our own write
    assert await holder._attempt(10)


async def test_a_released_lease_is_taken_at_once(core: Core, process: Any, own_clock: Clock) -> None:
    holder = process("one")
    await holder.acquire()
    await holder.release()
    assert holder.remaining <= 0
    before = own_clock.now
    await process("two").acquire()
    assert own_clock.now == before
    assert (await _lease(core))["leaseTransitions"] == 1


async def test_a_lease_that_somebody_deleted_is_made_again(core: Core, process: Any) -> None:
    holder = process("one")
    await holder.acquire()
    await MemoryClient(core).delete(LEASE, "lock", "ns")
    assert not await holder._attempt(10)
    assert await holder._attempt(10)
    assert (await _lease(core))["holderIdentity"] == "one"


async def test_what_others_wrote_into_the_lease_stays(core: Core, process: Any) -> None:
    holder = process("one")
    await holder.acquire()
    labels = {"metadata": {"labels": {"team": "a"}}}
    await MemoryClient(core).patch(LEASE, "lock", "ns", labels)
    assert not await holder._attempt(10)
    assert await holder._attempt(10)
    assert (await MemoryClient(core).get(LEASE, "lock", "ns"))["metadata"]["labels"] == {"team": "a"}


def test_times_that_leave_no_room_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lease duration \(10 s\) must be longer than the renew deadline"):
        LeaseLock("lock", "ns", lease_duration=10, renew_deadline=10)


def test_the_clock_moves_forward() -> None:
    assert boot_time() <= boot_time()


def _config(name: str) -> JSON:
    return {"metadata": {"name": name, "namespace": "ns"}}


async def test_a_fenced_client_writes_while_the_right_lasts_and_reads_always(
    core: Core, process: Any, own_clock: Clock
) -> None:
    holder = process("one")
    client = FencedClient(MemoryClient(core), holder)
    with pytest.raises(WriteRefusedError):
        await client.create(CONFIG_MAP, _config("a"))
    await holder.acquire()
    made = await client.create(CONFIG_MAP, _config("a"))
    own_clock.now += 10
    writes: list[Awaitable[object]] = [
        client.create(CONFIG_MAP, _config("b")),
        client.replace(CONFIG_MAP, made),
        client.patch(CONFIG_MAP, "a", "ns", {"data": {"k": "v"}}),
        client.apply(CONFIG_MAP, _config("a"), field_manager="m"),
        client.delete(CONFIG_MAP, "a", "ns"),
    ]
    for write in writes:
        with pytest.raises(WriteRefusedError):
            await write
    assert (await client.list(CONFIG_MAP, "ns")).items == [await client.get(CONFIG_MAP, "a", "ns")] == [made]


async def test_a_fenced_client_replaces_only_what_was_read(core: Core, process: Any) -> None:
    holder = process("one")
    await holder.acquire()
    client = FencedClient(MemoryClient(core), holder)
    await client.create(CONFIG_MAP, _config("a"))
    with pytest.raises(ValueError, match="ConfigMap a has no resourceVersion"):
        await client.replace(CONFIG_MAP, _config("a"))


class Recorder:
    def __init__(self) -> None:
        self.seen: list[Request] = []

    async def reconcile(self, request: Request) -> Result:
        self.seen.append(request)
        return Result()


def _manager(client: MemoryClient, lock: LeaseLock) -> tuple[Manager, Recorder]:
    manager, recorder = Manager(client, leader_election=lock), Recorder()
    Controller("config", recorder).watches(ConfigMap).register(manager)
    return manager, recorder


async def test_a_standby_keeps_its_cache_and_acts_when_the_leader_stops(
    client: MemoryClient, eventually: Any
) -> None:
    quick = {"lease_duration": 30.0, "renew_deadline": 20.0, "retry_period": 0.01}
    first, of_first = _manager(client, LeaseLock("lock", "ns", **quick))  # type: ignore[arg-type]
    running = asyncio.create_task(first.run())
    await first.wait_ready()
    second, of_second = _manager(client, LeaseLock("lock", "ns", **quick))  # type: ignore[arg-type]
    standing_by = asyncio.create_task(second.run())
    await client.create(CONFIG_MAP, _config("a"))
    await eventually(lambda: of_first.seen == [Request("ns", "a")])
    await eventually(lambda: second.cache.lister(ConfigMap).get("a", "ns"))
    assert second.ready
    assert not second.active
    assert of_second.seen == []
    first.stop()
    await running
    await eventually(lambda: of_second.seen == [Request("ns", "a")])
    assert second.active
    second.stop()
    await standing_by


async def test_a_manager_that_loses_the_lease_ends_without_waiting_for_its_reconciles(
    client: MemoryClient,
) -> None:
    started = asyncio.Event()

    class Stuck:
        async def reconcile(self, _request: Request) -> Result:
            started.set()
            await asyncio.Event().wait()
            return Result()

    lock = LeaseLock("lock", "ns", lease_duration=0.4, renew_deadline=0.3, retry_period=0.05)
    manager = Manager(client, leader_election=lock)
    Controller("stuck", Stuck()).watches(ConfigMap).register(manager)
    await client.create(CONFIG_MAP, _config("a"))
    running = asyncio.create_task(manager.run())
    await started.wait()
    taken = {"spec": {"holderIdentity": "somebody else", "leaseDurationSeconds": 600}}
    await client.patch(LEASE, "lock", "ns", taken)
    with pytest.raises(LeadershipLostError):
        async with asyncio.timeout(10):
            await running
    assert not manager.active


async def test_a_lease_that_is_given_back_slowly_is_not_taken_for_lost(core: Core) -> None:
    class Slow(MemoryClient):
        async def replace(self, resource: Any, obj: JSON, *, subresource: str = "") -> JSON:
            if obj["spec"].get("holderIdentity") == "":
                await asyncio.sleep(20 * lock.retry_period)  # the server's, in which renewals would be due
            return await super().replace(resource, obj, subresource=subresource)

    lock = LeaseLock("lock", "ns", lease_duration=30, renew_deadline=20, retry_period=0.01)
    manager, _ = _manager(Slow(core), lock)
    running = asyncio.create_task(manager.run())
    await manager.wait_ready()
    manager.stop()
    await running
    assert (await _lease(core))["holderIdentity"] == ""


async def test_a_standby_stops_without_having_led(core: Core) -> None:
    quick = {"lease_duration": 30.0, "renew_deadline": 20.0, "retry_period": 0.01}
    holder = Leadership(MemoryClient(core), LeaseLock("lock", "ns", "other", **quick))  # type: ignore[arg-type]
    await holder.acquire()
    manager, _ = _manager(MemoryClient(core), LeaseLock("lock", "ns", **quick))  # type: ignore[arg-type]
    running = asyncio.create_task(manager.run())
    await manager.cache.wait_synced()
    manager.stop()
    await running
    assert (await _lease(core))["holderIdentity"] == "other"

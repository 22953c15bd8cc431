"""A server's end is noticed once."""

import asyncio
from typing import Any, cast

from mesh.guard import RuntimeGuard
from mesh.runtime import Runtime, RuntimeTerms
from store.records import Resources
from tests.store.waiting import until


class SlowProbes:
    """A server that is ready whenever it is asked to be; probes of it end when told."""

    knows_session = False

    def __init__(self) -> None:
        self.probes: list[asyncio.Future[bool]] = []

    async def ready(self) -> RuntimeTerms:
        return RuntimeTerms(Resources(100), 2, 10.0, Resources(10), "1", {}, allow_any_method=True)

    async def alive(self) -> bool:
        self.probes.append(asyncio.get_running_loop().create_future())
        return await self.probes[-1]


class Losses:
    """Counts the servers that were given up."""

    count = 0

    def resume(self, _: RuntimeTerms) -> None:
        return

    def suspend(self) -> None:
        self.count += 1


async def test_a_probe_of_a_server_that_was_replaced_says_nothing_of_the_new_one() -> None:
    server, losses = SlowProbes(), Losses()
    guard = RuntimeGuard(
        cast("Runtime", server), cast("Any", losses), on_ready=lambda _: None, on_lost=lambda: None
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

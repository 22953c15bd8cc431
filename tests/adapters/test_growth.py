"""What counts as a measurement of a model: a server's metrics, from one reading to the next."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from adapters.growth import ProcessGrowth

MIB = 1 << 20


class Process:
    """A server that tells its memory."""

    resident = 100 * MIB
    started = "1764288000.5"

    def meanwhile(self) -> None:
        """What happens while it is read."""

    async def metrics(self, _: web.Request) -> web.Response:
        self.meanwhile()
        if not self.resident:
            return web.Response(text="parallel_request_queue_count 3\n")
        return web.Response(
            text="# TYPE process_resident_memory_bytes gauge\n"
            f"process_resident_memory_bytes {self.resident:.9e}\n"
            f"process_start_time_seconds {self.started}\n"
        )


@pytest.fixture
async def process(unused_tcp_port: int) -> AsyncIterator[tuple[Process, ProcessGrowth]]:
    told, application = Process(), web.Application()
    application.router.add_get("/metrics", told.metrics)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    growth = ProcessGrowth(unused_tcp_port)
    assert await measure((told, growth), 80) is None  # the first of its kind brings the libraries
    yield told, growth
    await runner.cleanup()


async def measure(process: tuple[Process, ProcessGrowth], mib: int, estimate: int = 0) -> int | None:
    async with process[1].measured("sklearn", estimate) as told:
        process[0].resident += mib * MIB
    return told.bytes


async def test_growth_that_is_clearly_more_than_the_estimate_is_the_models(
    process: tuple[Process, ProcessGrowth],
) -> None:
    assert await measure(process, 64, 2 * MIB) == 64 * MIB
    assert await measure(process, 64, 60 * MIB) is None
    assert await measure(process, 3) is None
    assert await measure(process, -10) is None


async def test_the_first_of_a_kind_is_not_measured_again_after_a_restart(
    process: tuple[Process, ProcessGrowth],
) -> None:
    process[0].started = "1764288060.25"
    assert await measure(process, 64) is None
    assert await measure(process, 64) == 64 * MIB


async def test_a_server_that_restarts_meanwhile_has_no_growth(process: tuple[Process, ProcessGrowth]) -> None:
    async with process[1].measured("sklearn", 0) as told:
        process[0].started, process[0].resident = "1764288060.25", 500 * MIB
    assert told.bytes is None


async def test_loads_and_unloads_beside_each_other_are_not_measured(
    process: tuple[Process, ProcessGrowth],
) -> None:
    with process[1].change():
        assert await measure(process, 64) is None
    async with process[1].measured("sklearn", 0) as outer:
        process[0].resident += 64 * MIB
        with process[1].change():
            pass
    assert outer.bytes is None
    assert await measure(process, 64) == 64 * MIB


async def test_an_unload_during_the_first_reading_counts_as_beside(
    process: tuple[Process, ProcessGrowth], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unload() -> None:
        monkeypatch.undo()
        with process[1].change():
            pass

    monkeypatch.setattr(process[0], "meanwhile", unload)
    assert await measure(process, 64) is None
    assert await measure(process, 64) == 64 * MIB


async def test_a_server_that_tells_nothing_is_not_measured(process: tuple[Process, ProcessGrowth]) -> None:
    process[0].resident = 0
    async with process[1].measured("sklearn", 0) as told:
        pass
    assert told.bytes is None
    async with ProcessGrowth(1).measured("sklearn", 0) as unreachable:
        pass
    async with ProcessGrowth(0).measured("sklearn", 0) as off:
        pass
    assert (unreachable.bytes, off.bytes) == (None, None)

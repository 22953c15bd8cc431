"""Whatever ends a load or an unload, and when, nothing of it stays behind."""

import asyncio
from typing import cast

import pytest

from mesh.errors import RemovedError, RuntimeDownError
from mesh.loading import Loader
from mesh.runtime import ModelInfo, Runtime, RuntimeTerms
from store.records import NOTHING, Resources

TERMS = RuntimeTerms(Resources(100), 2, 10.0, Resources(10), "1", {}, allow_any_method=True)
INFO = ModelInfo("m", "t", "p", "")


class InstantRuntime:
    """A server on which everything succeeds at once, but for what `fault` says."""

    fault: Exception | None = None

    async def predict(self, _: ModelInfo) -> Resources:
        return Resources(10)

    async def load(self, _info: ModelInfo, _timeout: float) -> Resources:
        if self.fault:
            raise self.fault
        return Resources(10)

    async def unload(self, _: str) -> None:
        return


@pytest.fixture
def runtime() -> InstantRuntime:
    return InstantRuntime()


@pytest.fixture
def loader(runtime: InstantRuntime) -> Loader:
    async def drained(_: str) -> None:
        return

    loader = Loader(
        cast("Runtime", runtime),
        on_loaded=lambda _: None,
        on_evict=lambda *_: None,
        note_use=lambda: None,
        drained=drained,
        now=lambda: 1,
    )
    loader.resume(TERMS)
    return loader


async def load(loader: Loader) -> Resources:
    async with asyncio.timeout(1):
        return await loader.load(INFO, size=None, last_used=1, urgent=True)


def load_step(loader: Loader) -> asyncio.Task[Resources]:
    """Runs `load` as far as its first wait: its own task has not begun by then."""
    return asyncio.create_task(load(loader))


@pytest.mark.parametrize("how", ["unload", "suspend"])
async def test_a_load_cancelled_before_its_first_step_can_be_had_again(loader: Loader, how: str) -> None:
    first = load_step(loader)
    asyncio.get_running_loop().call_soon(
        lambda: loader.unload("m", why="test") if how == "unload" else loader.suspend()
    )
    with pytest.raises(RemovedError if how == "unload" else RuntimeDownError):
        await first
    await asyncio.sleep(0)
    assert loader.pending == 0
    if how == "suspend":
        loader.resume(TERMS)
    assert await load(loader) == Resources(10)


async def test_an_unload_cancelled_before_its_first_step_keeps_no_memory(loader: Loader) -> None:
    await load(loader)
    loader.unload("m", why="test")
    async with asyncio.timeout(1):
        await loader.close()
    assert loader.cache.in_use == NOTHING


async def test_a_fault_of_our_own_ends_the_wait_for_a_load(loader: Loader, runtime: InstantRuntime) -> None:
    runtime.fault = ValueError("unexpected")
    with pytest.raises(RuntimeDownError):
        await load(loader)
    assert loader.pending == 0

"""The contract of unloadModel: when it answers, the model's memory is free."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from modelmesh.conformance.checks import Failure, Group, NotRun
from modelmesh.conformance.loading import load_succeeds
from modelmesh.conformance.starting import status_ready

if TYPE_CHECKING:
    from modelmesh.conformance.run import Run

GROUP = Group("unloadModel")

_AT_ONCE_S = 5.0
_ROUNDS = 2
# When an unload overtakes a load, in parts of the time that a load takes; the next where the load was faster.
_ATTEMPTS = (0.3, 0.2, 0.1)


@GROUP.check(status_ready)
async def unload_unknown(run: Run) -> None:
    """Unloading a model that nobody loaded succeeds at once."""
    started = time.monotonic()
    await run.unload(run.new_id())
    if (seconds := time.monotonic() - started) > _AT_ONCE_S:
        raise Failure(f"it took {seconds:.1f} s")


@GROUP.check(load_succeeds)
async def unload_empties(run: Run) -> None:
    """When unloadModel has answered, the model is not loaded any more."""
    async with run.loaded() as model_id:
        await run.demand_present(model_id, "after its load")
        await run.unload(model_id)
        await run.demand_absent(model_id, "after unloadModel answered")


@GROUP.check(load_succeeds)
async def unload_twice(run: Run) -> None:
    """A second unload of the same model succeeds too."""
    async with run.loaded() as model_id:
        await run.unload(model_id)
        await run.unload(model_id)


@GROUP.check(load_succeeds)
async def unload_only_named(run: Run) -> None:
    """An unload leaves other models alone, also another one with the same path."""
    async with run.loaded() as kept, run.loaded() as gone:
        await run.unload(gone)
        await run.demand_present(kept, "after another model was unloaded")


@GROUP.check(load_succeeds)
async def load_again(run: Run) -> None:
    """A model that was unloaded can be loaded again under the same id, again and again."""
    async with run.fresh() as model_id:
        for _ in range(_ROUNDS):
            await run.load(model_id)
            await run.unload(model_id)
        await run.load(model_id)
        if run.can_see:
            await run.demand_present(model_id, f"after {_ROUNDS} loads and unloads and one more load")


@GROUP.check(unload_empties)
async def unload_during_load(run: Run) -> None:
    """Of a load and an unload that overtakes it nothing is left when both have answered."""
    async with run.fresh() as model_id:
        for moment in _ATTEMPTS:
            load = asyncio.ensure_future(run.outcome(run.start_load(model_id)))
            await run.wait_for_part(moment)
            overtaken = not load.done()
            await run.unload(model_id)
            await load
            if overtaken:
                await run.demand_absent(model_id, "after an unload that came while it was being loaded")
                return
    raise NotRun(run.too_fast)

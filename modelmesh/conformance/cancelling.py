"""The contract of cancellation: the mesh cancels a load, unloads at once, and must find nothing left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from modelmesh.conformance.checks import Group, NotRun
from modelmesh.conformance.loading import load_succeeds
from modelmesh.conformance.unloading import unload_empties

if TYPE_CHECKING:
    from modelmesh.conformance.run import Run

GROUP = Group("cancellation")

# When a load is cancelled, in parts of the time that a load takes.
_MOMENTS = (0.1, 0.4, 0.7)
# And where one cancellation is enough: earlier each time, as a busy machine may let the load end first.
_ATTEMPTS = (0.4, 0.3, 0.2, 0.1, 0.1)


async def _cancel(run: Run, model_id: str, moment: float) -> None:
    """Begins a load and cancels it. Raises NotRun where that came after its end."""
    load = run.start_load(model_id)
    asked = asyncio.ensure_future(run.outcome(load))
    await run.wait_for_part(moment)
    if asked.done():
        raise NotRun(run.too_fast)
    load.cancel()
    await asyncio.wait({asked})


async def _cancel_once(run: Run, model_id: str) -> None:
    """Cancels a load, in as many attempts as it takes. Raises NotRun where all came too late."""
    for moment in _ATTEMPTS:
        try:
            await _cancel(run, model_id, moment)
        except NotRun as reason:
            late = reason
            await run.unload(model_id)
        else:
            return
    raise late


@GROUP.check(unload_empties)
async def cancelled_load_leaves_nothing(run: Run) -> None:
    """After a cancelled load and the unload that follows at once, the model is not loaded and stays so."""
    late: list[NotRun] = []
    for moment in _MOMENTS:
        async with run.fresh() as model_id:
            try:
                await _cancel(run, model_id, moment)
            except NotRun as reason:
                late.append(reason)
            await run.unload(model_id)
            await run.demand_absent(model_id, "after its load was cancelled and unloadModel answered")
    if len(late) == len(_MOMENTS):
        raise late[0]


@GROUP.check(load_succeeds)
async def load_after_cancel(run: Run) -> None:
    """A load that was cancelled and unloaded can be made again under the same id."""
    async with run.fresh() as model_id:
        await _cancel_once(run, model_id)
        await run.unload(model_id)
        await run.load(model_id)
        if run.can_see:
            await run.demand_present(model_id, "after a cancelled load, an unload and a load")


@GROUP.check(load_succeeds)
async def cancel_harms_no_other(run: Run) -> None:
    """While a cancelled load comes to its end, other models are loaded, and those that are loaded stay so."""
    async with run.loaded() as loaded, run.fresh() as cancelled, run.fresh() as other:
        await _cancel_once(run, cancelled)
        await run.load(other)
        # Once more: the first may have come in before the cancellation, which goes its own way.
        await run.unload(other)
        await run.load(other)
        if run.can_see:
            await run.demand_present(loaded, "after the load of another model was cancelled")

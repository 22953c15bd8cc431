"""The contract of loadModel, modelSize and predictModelSize for models that are whole."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import grpc
from grpc import aio

from modelmesh.conformance.checks import DoesNotApply, Failure, Group
from modelmesh.conformance.starting import status_ready

if TYPE_CHECKING:
    from modelmesh.conformance.run import Run

GROUP = Group("loadModel")

# The mesh waits this long for a predicted size, and goes without it then.
_PREDICTION_S = 0.5
# More loads at once than this tell nothing new.
_MOST_LOADS = 8


async def _seconds_to_load(run: Run, model_id: str) -> float:
    started = time.monotonic()
    await run.load(model_id)
    return time.monotonic() - started


@GROUP.check(status_ready)
async def load_succeeds(run: Run) -> None:
    """A whole model is loaded."""
    async with run.fresh() as first:
        run.first_load_s = await _seconds_to_load(run, first)
    async with run.fresh() as model_id:
        run.load_s = min(run.first_load_s, await _seconds_to_load(run, model_id))
        await run.learn_to_see(model_id)


@GROUP.check(load_succeeds)
async def load_in_time(run: Run) -> None:
    """LoadModel answers within modelLoadingTimeoutMs; the mesh gives up then."""
    allowed_s = run.terms.modelLoadingTimeoutMs / 1000
    if run.first_load_s > allowed_s:
        raise Failure(f"it took {run.first_load_s:.1f} s; modelLoadingTimeoutMs allows {allowed_s:g} s")


@GROUP.check(load_succeeds)
async def load_size(run: Run) -> None:
    """The size of a loaded model is told: by loadModel, or by modelSize where that says 0."""
    async with run.fresh() as model_id:
        size, where = (await run.load(model_id)).sizeInBytes, "loadModel"
        if not size:
            where = "modelSize, which the mesh asks as loadModel told no size,"
            size = await run.demand(run.size(model_id), "modelSize, asked as loadModel told no size,")
        if not size:
            raise Failure(f"{where} said 0 bytes")
        if size > run.terms.capacityInBytes:
            raise Failure(
                f"{where} said {size} bytes, more than capacityInBytes ({run.terms.capacityInBytes})"
            )


@GROUP.check(load_succeeds)
async def load_concurrency(run: Run) -> None:
    """With limitModelConcurrency, loadModel tells a maxConcurrency above 0."""
    if not run.terms.limitModelConcurrency:
        raise DoesNotApply("limitModelConcurrency is not set")
    async with run.fresh() as model_id:
        if not (await run.load(model_id)).maxConcurrency:
            raise Failure("limitModelConcurrency is set, and loadModel said maxConcurrency 0")


@GROUP.check(load_succeeds)
async def size_predicted(run: Run) -> None:
    """PredictModelSize, if offered, answers for a model that is not loaded, soon, and loads nothing."""
    model_id = run.new_id()
    started = time.monotonic()
    try:
        size = await run.predict(model_id)
    except aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            raise DoesNotApply("predictModelSize is not implemented") from error
        raise Failure(
            f"predictModelSize of a whole model failed with {error.code().name}: {error.details()}"
        ) from error
    if (seconds := time.monotonic() - started) > _PREDICTION_S:
        raise Failure(f"predictModelSize took {seconds:.2f} s; the mesh waits {_PREDICTION_S:g} s")
    if size > run.terms.capacityInBytes:
        raise Failure(f"predictModelSize said {size} bytes, more than capacityInBytes")
    if run.can_see:
        await run.demand_absent(model_id, "after predictModelSize")


@GROUP.check(load_succeeds)
async def loads_side_by_side(run: Run) -> None:
    """As many different models as maxLoadingConcurrency allows are loaded at once, all of them well."""
    number = max(2, min(run.terms.maxLoadingConcurrency, _MOST_LOADS))
    async with AsyncExitStack() as stack:
        ids = [await stack.enter_async_context(run.fresh()) for _ in range(number)]
        await asyncio.gather(*map(run.load, ids))
        if run.can_see:
            for model_id in ids:
                await run.demand_present(model_id, f"after {number} loads at once")

"""The contract of failure: a model that cannot be loaded is refused with words, and harms nothing."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import grpc

from modelmesh.conformance.checks import Failure, Group, NotRun
from modelmesh.conformance.loading import load_succeeds

if TYPE_CHECKING:
    from modelmesh.conformance.run import Run

GROUP = Group("refusals")

# Codes that mean something else to the mesh: that the runtime is gone, too old, or was interrupted.
_MISLEADING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.CANCELLED}


def _missing(run: Run) -> str:
    return f"{run.model.path.rstrip('/')}-missing-{secrets.token_hex(4)}"


async def _refused(run: Run, model_id: str, path: str, what: str) -> tuple[grpc.StatusCode, str]:
    code, words = await run.outcome(run.start_load(model_id, path))
    if code is grpc.StatusCode.OK:
        raise Failure(f"loadModel of {what} ({path}) succeeded")
    return code, words


@GROUP.check(load_succeeds)
async def missing_model_refused(run: Run) -> None:
    """A model whose path leads nowhere is refused."""
    async with run.fresh() as model_id:
        await _refused(run, model_id, _missing(run), "a model that does not exist")


@GROUP.check(load_succeeds)
async def broken_model_refused(run: Run) -> None:
    """A model whose files are broken is refused."""
    if not run.model.broken_path:
        raise NotRun("needs a model that cannot be loaded: give --broken-path")
    async with run.fresh() as model_id:
        await _refused(run, model_id, run.model.broken_path, "a broken model")


@GROUP.check(missing_model_refused)
async def refusal_explained(run: Run) -> None:
    """A refusal has words for the model's owner, and a code that does not say that the runtime is gone."""
    async with run.fresh() as model_id:
        code, words = await _refused(run, model_id, _missing(run), "a model that does not exist")
    if code in _MISLEADING:
        raise Failure(
            f"the code is {code.name}, which the mesh takes for a runtime that is away; NOT_FOUND would do"
        )
    if not words.strip():
        raise Failure(
            f"the refusal ({code.name}) has no message, so the model's owner cannot know what is wrong"
        )


@GROUP.check(missing_model_refused)
async def refusal_leaves_nothing(run: Run) -> None:
    """A model that was refused is not loaded, and unloading it succeeds."""
    async with run.fresh() as model_id:
        await _refused(run, model_id, _missing(run), "a model that does not exist")
        await run.unload(model_id)
        if run.can_see:
            await run.demand_absent(model_id, "after its load was refused")


@GROUP.check(missing_model_refused)
async def load_after_refusal(run: Run) -> None:
    """After a refusal a whole model is loaded, under another id and under the same."""
    async with run.fresh() as refused, run.fresh() as other:
        await _refused(run, refused, _missing(run), "a model that does not exist")
        await run.load(other)
        await run.unload(refused)
        await run.load(refused)


@GROUP.check(missing_model_refused)
async def refusal_harms_no_other(run: Run) -> None:
    """Models that are loaded stay so when another one is refused."""
    async with run.loaded() as loaded, run.fresh() as refused:
        await _refused(run, refused, _missing(run), "a model that does not exist")
        await run.demand_present(loaded, "after another model was refused")

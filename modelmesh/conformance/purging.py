"""The contract of a new beginning: a mesh that starts finds an empty runtime when that says READY."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from modelmesh.conformance.checks import DoesNotApply, Group
from modelmesh.conformance.loading import load_succeeds

if TYPE_CHECKING:
    from modelmesh.conformance.run import Run

GROUP = Group("a new mesh")


@GROUP.check(load_succeeds)
async def purge_before_ready(run: Run) -> None:
    """A mesh that begins anew finds READY only when no model is loaded any more."""
    async with run.loaded() as model_id:
        await run.demand_present(model_id, "after its load")
        await run.begin_anew()
        await run.demand_absent(model_id, "after runtimeStatus said READY to a new mesh")


@GROUP.check(purge_before_ready)
async def load_after_purge(run: Run) -> None:
    """A model that was purged can be loaded again under the same id."""
    async with run.loaded() as model_id:
        await run.begin_anew()
        await run.load(model_id)
        await run.demand_present(model_id, "after a load that followed a purge")


@GROUP.check(purge_before_ready)
async def session_keeps_models(run: Run) -> None:
    """A runtime that echoes mm-session purges for a new session only, not for one that asks again."""
    session = secrets.token_hex(8)
    _, echoed = await run.begin_anew(session)
    if not echoed:
        raise DoesNotApply(
            "the runtime does not echo mm-session, so it is asked for its status at the start only"
        )
    async with run.loaded() as model_id:
        await run.begin_anew(session)
        await run.demand_present(model_id, "after the same session asked again")

"""All checks, and making them one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelmesh.conformance import cancelling, inferring, loading, purging, refusing, starting, unloading
from modelmesh.conformance.checks import Result, run_check, with_needs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from modelmesh.conformance.checks import Check
    from modelmesh.conformance.run import Run

_PARTS = (starting, loading, purging, unloading, refusing, cancelling, inferring)

CHECKS: Sequence[Check] = tuple(check for part in _PARTS for check in part.GROUP.checks)
"""Every check, behind those that it needs."""


async def run_suite(run: Run, chosen: Sequence[Check] = CHECKS) -> AsyncIterator[Result]:
    """Makes the chosen checks and those that they need; yields each result as it comes."""
    done: list[Result] = []
    try:
        for check in with_needs(chosen, CHECKS):
            done.append(await run_check(check, run, done))
            yield done[-1]
    finally:
        await run.clean_up()

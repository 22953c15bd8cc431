"""What a check is, how it ends, and the order in which checks run."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from grpc import aio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator

    from modelmesh.conformance.run import Run

    Work = Callable[[Run], Awaitable[None]]


class Verdict(Enum):
    """How a check ended. What was not run says nothing about the runtime."""

    PASSED = "passed"
    FAILED = "FAILED"
    NOT_RUN = "not run"
    DOES_NOT_APPLY = "does not apply"


class Failure(Exception):  # noqa: N818 - a verdict, not an error of this program
    """The runtime broke the contract; says what it did."""


class NotRun(Exception):  # noqa: N818 - as Failure
    """The check cannot be made; says what is missing."""


class DoesNotApply(Exception):  # noqa: N818 - as Failure
    """The runtime does not offer the optional part that the check is about."""


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """One promise of the contract: `work` ends by one of the exceptions above, or in peace.

    `needs` are checks without which this one could tell nothing.
    """

    name: str
    group: str
    demand: str
    work: Work
    needs: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """How one check ended, with the words of a verdict other than PASSED.

    `needed` is the check that did not pass where this one needs it.
    """

    check: Check
    verdict: Verdict
    words: str = ""
    seconds: float = 0.0
    needed: str = ""


@dataclass(slots=True)
class Group:
    """The checks of one part of the contract, in the order in which they are written."""

    name: str
    checks: list[Check] = field(default_factory=list)

    def check(self, *needs: Check) -> Callable[[Work], Check]:
        """Makes a function a check of this group: its name with dashes, its docstring as the demand."""

        def register(work: Work) -> Check:
            name = getattr(work, "__name__", "").replace("_", "-")
            demand = " ".join((work.__doc__ or "").split())
            check = Check(name, self.name, demand, work, needs)
            self.checks.append(check)
            return check

        return register


def with_needs(chosen: Collection[Check], every: Iterable[Check]) -> list[Check]:
    """Returns the chosen checks and those that they need, in the order of `every`."""

    def closure(checks: Iterable[Check]) -> Iterator[Check]:
        for check in checks:
            yield check
            yield from closure(check.needs)

    wanted = set(closure(chosen))
    return [check for check in every if check in wanted]


async def run_check(check: Check, run: Run, before: Iterable[Result]) -> Result:
    """Makes a check, unless one that it needs did not pass."""
    for result in before:
        if result.check in check.needs and result.verdict is not Verdict.PASSED:
            return Result(check, Verdict.NOT_RUN, result.words, needed=result.needed or result.check.name)
    started = time.monotonic()
    verdict, words = Verdict.PASSED, ""
    try:
        await check.work(run)
    except Failure as failure:
        verdict, words = Verdict.FAILED, str(failure)
    except NotRun as reason:
        verdict, words = Verdict.NOT_RUN, str(reason)
    except DoesNotApply as reason:
        verdict, words = Verdict.DOES_NOT_APPLY, str(reason)
    except aio.AioRpcError as error:
        verdict, words = Verdict.FAILED, f"a call failed: {error.code().name}: {error.details()}"
    return Result(check, verdict, words, time.monotonic() - started)

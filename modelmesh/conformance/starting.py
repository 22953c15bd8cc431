"""The contract of runtimeStatus: a runtime says when it is READY, and what it can take then."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from modelmesh.conformance.checks import Failure, Group

if TYPE_CHECKING:
    from modelmesh.conformance.run import Run

GROUP = Group("runtimeStatus")

# What the mesh takes for a capacity at most, and the shortest time for a load; as the original's bounds.
_MOST_BYTES, _SHORTEST_LOAD_MS = 1 << 60, 100
_METHOD = re.compile(r"[\w.]+/\w+")


@GROUP.check()
async def status_ready(run: Run) -> None:
    """RuntimeStatus says READY in the end, and until then STARTING or FAILING, never an error."""
    run.terms, _ = await run.begin_anew()


@GROUP.check(status_ready)
async def status_limits(run: Run) -> None:
    """The answer that says READY tells limits that the mesh can work with."""
    terms = run.terms
    if terms.maxLoadingConcurrency < 1:
        raise Failure("maxLoadingConcurrency is 0, so that no model would ever be loaded")
    if terms.modelLoadingTimeoutMs < _SHORTEST_LOAD_MS:
        raise Failure(f"modelLoadingTimeoutMs is {terms.modelLoadingTimeoutMs}; at least {_SHORTEST_LOAD_MS}")
    if terms.defaultModelSizeInBytes < 1:
        raise Failure("defaultModelSizeInBytes is 0")
    if terms.capacityInBytes >= _MOST_BYTES:
        raise Failure(f"capacityInBytes is {terms.capacityInBytes}; did a negative number become unsigned?")
    if terms.capacityInBytes < terms.defaultModelSizeInBytes:
        raise Failure(
            f"capacityInBytes ({terms.capacityInBytes}) does not hold one model of defaultModelSizeInBytes "
            f"({terms.defaultModelSizeInBytes})"
        )


@GROUP.check(status_ready)
async def status_methods(run: Run) -> None:
    """MethodInfos name methods as PACKAGE.SERVICE/METHOD, and fields by numbers above 0."""
    for name, info in run.terms.methodInfos.items():
        if not _METHOD.fullmatch(name):
            raise Failure(
                f"method {name!r} is not of the form package.Service/method, without a leading slash"
            )
        if 0 in info.idInjectionPath:
            raise Failure(f"idInjectionPath of {name} has a 0, which is no field number")

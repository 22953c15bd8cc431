"""Work in threads that nobody leaves behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple, Unpack

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


async def in_thread(function: Callable[[Unpack[Arguments]], T], *args: *Arguments) -> T:
    """Runs a function in a thread, like `asyncio.to_thread`, but a cancelled caller waits until it has ended.

    No thread can be stopped: it would go on writing to files that its caller closes, removes or makes anew.
    """
    work = asyncio.get_running_loop().run_in_executor(None, function, *args)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            try:
                await asyncio.wait({work})
            except asyncio.CancelledError:  # cancelled once more
                continue
        work.exception()  # of no interest any more
        raise

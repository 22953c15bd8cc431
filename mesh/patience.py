"""How long work on a miss is worth it: until the last of the requests that wait for it gives up."""

import asyncio
from types import TracebackType
from typing import Self

from mesh.bytes import Miss
from mesh.errors import DeadlineError


class Patience:
    """Ends the block with DeadlineError when nobody waits any more.

    Like `asyncio.timeout`, but for a deadline that grows as more requests join.
    """

    def __init__(self, miss: Miss) -> None:
        self._miss = miss
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    async def __aenter__(self) -> Self:
        """Begins. Raises DeadlineError where it is too late already."""
        self._task = asyncio.current_task()
        self._look()
        if self._is_over:
            raise _late()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends; who else has cancelled the task is not kept from it."""
        if self._timer:
            self._timer.cancel()
        if self._is_over and self._task and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise _late() from error

    def _look(self) -> None:
        left = self._miss.deadline_ms
        if left is None:
            return
        if left > 0:
            self._timer = asyncio.get_running_loop().call_later(left / 1000, self._look)
            return
        self._is_over = True
        if self._timer and self._task:
            self._task.cancel()


def _late() -> DeadlineError:
    return DeadlineError("the model could not be loaded before the request's deadline")

"""Work on a miss ends when nobody waits for it any more."""

import asyncio
from typing import Any, cast

import pytest

from mesh.errors import DeadlineError, ModelNotFoundError
from mesh.patience import Patience


class Waiting:
    """Requests whose last one gives up at `end`, on the loop's clock."""

    def __init__(self, milliseconds: int | None) -> None:
        self.end = None if milliseconds is None else self.now() + milliseconds

    @staticmethod
    def now() -> int:
        return round(asyncio.get_running_loop().time() * 1000)

    @property
    def deadline_ms(self) -> int | None:
        return None if self.end is None else max(0, self.end - self.now())


def patience(waiting: Waiting) -> Patience:
    return Patience(cast("Any", waiting))


async def test_work_that_nobody_waits_for_ends() -> None:
    with pytest.raises(DeadlineError, match="before the request's deadline"):
        async with patience(Waiting(50)):
            await asyncio.Event().wait()
    await asyncio.sleep(0)  # nothing of the cancellation is left


async def test_work_for_requests_that_are_over_does_not_begin() -> None:
    with pytest.raises(DeadlineError):
        async with patience(Waiting(0)):
            pytest.fail("it has begun")


async def test_work_goes_on_for_a_request_that_joined() -> None:
    waiting = Waiting(50)
    async with patience(waiting):
        waiting.end = waiting.now() + 60_000
        await asyncio.sleep(0.1)


async def test_work_without_a_deadline_goes_on_and_its_errors_pass() -> None:
    with pytest.raises(ModelNotFoundError):
        async with patience(Waiting(None)):
            raise ModelNotFoundError("m")


async def test_who_cancels_the_work_is_obeyed() -> None:
    async def work() -> None:
        async with patience(Waiting(60_000)):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

"""Waiting for a condition, with a deadline."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 10) -> None:
    """Returns when the condition holds; fails when it does not in time."""

    async def poll() -> None:
        while True:
            holds = condition()
            if await holds if inspect.isawaitable(holds) else holds:
                return
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), seconds)

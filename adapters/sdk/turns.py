"""Turns: one thing happens to a model at a time, first come, first served."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class _Turn:
    """The queue of one model: asyncio's lock is first come, first served."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.wanted = 0


class Turns:
    """A queue for each model that somebody waits for."""

    def __init__(self) -> None:
        self._turns: defaultdict[str, _Turn] = defaultdict(_Turn)

    @contextlib.asynccontextmanager
    async def turn(self, model_id: str) -> AsyncIterator[None]:
        """Waits for the model's turn and holds it."""
        turn = self._turns[model_id]
        turn.wanted += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                del self._turns[model_id]

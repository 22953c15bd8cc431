"""How much a server's process grew by a load, from the Prometheus metrics that it serves of itself.

No server tells the memory of one model. A process that holds its models itself tells its own, and what it
gained during a load is the model's, where nothing else happened meanwhile.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_RESIDENT = re.compile(r"^process_resident_memory_bytes ([0-9.e+]+)$", re.MULTILINE)
_STARTED = re.compile(r"^process_start_time_seconds ([0-9.e+]+)$", re.MULTILINE)
_QUICK_S = 2.0
# A process that only answers requests moves by some MiB; less than this says nothing about a model.
_NOISE_BYTES = 16 << 20


@dataclass(slots=True)
class Measurement:
    """Bytes of a model that was loaded; None where they could not be told."""

    bytes: int | None = None


class ProcessGrowth:
    """Measures loads of one server, whose metrics are on `port` of this pod; 0 measures nothing."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/metrics" if port else ""
        self._changes = self._under_way = 0
        self._libraries: set[tuple[str, str]] = set()

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """Around whatever changes the server's memory; loads beside it are not measured."""
        self._changes += 1
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    @contextlib.asynccontextmanager
    async def measured(self, kind: str, estimate: int) -> AsyncIterator[Measurement]:
        """Around a load of a model of a `kind`; told are bytes that are clearly more than the estimate.

        Not told are those of the first model of a kind in a server's life, with which its libraries come.
        """
        told = Measurement()
        with self.change():
            changes, alone = self._changes, self._under_way == 1
            before = await self._read()
            yield told
            after = await self._read()
            if not before or not after or before[1] != after[1]:
                return
            first = (after[1], kind) not in self._libraries
            self._libraries.add((after[1], kind))
            grown = after[0] - before[0]
            if alone and changes == self._changes and not first and grown > estimate + _NOISE_BYTES:
                told.bytes = grown

    async def _read(self) -> tuple[int, str] | None:
        """Resident bytes and start of the process; None where it tells none, as MLServer with workers."""
        if not self._url:
            return None
        import aiohttp  # noqa: PLC0415 - memory that only those who ask for it pay

        try:
            timeout = aiohttp.ClientTimeout(total=_QUICK_S)
            async with (
                aiohttp.ClientSession(trust_env=False, timeout=timeout) as session,
                session.get(self._url) as answer,
            ):
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError):
            return None
        resident, started = _RESIDENT.search(text), _STARTED.search(text)
        return (int(float(resident[1])), started[1]) if resident and started else None

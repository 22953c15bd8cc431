"""Writes changes of model records, all that wait at a time in one transaction of the store.

A mesh under load changes records far more often than a store answers. Changes of different models share a
transaction, each with its own comparison; changes of one model that wait together become one write.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

import structlog

from mesh.errors import RegistryUnavailableError
from store.base import MAX_BATCH_TXNS, Store, Txn, TxnResult
from store.errors import StoreAuthError, StoreError, StoreUnavailableError
from store.records import ModelRecord
from store.table import Table

MAX_CONFLICTS = 100
"""Lost races for one record before giving up; each means that another writer got ahead."""

LINGER_SECONDS = 0.005
"""How long a change that nobody waits for stays open for more of its kind: a quick load's claim, its end and
the eviction that made room for it are then one write."""

log = structlog.get_logger(__name__)

Change = Callable[[ModelRecord | None], ModelRecord | None]
"""From a record to what it shall be; None where there is or shall be none."""
OnWrite = Callable[[float, int], None]
"""Told of each batch: the milliseconds it took, and how many of its records could not be written."""


def ignore_write(_milliseconds: float, _failures: int) -> None:
    """An OnWrite for who does not measure."""


class _Waiting(NamedTuple):
    change: Change
    done: asyncio.Future[ModelRecord | None]


class RecordWriter:
    """Applies changes by compare-and-swap until nobody gets in between."""

    def __init__(self, store: Store, models: Table[ModelRecord], on_write: OnWrite = ignore_write) -> None:
        self._store = store
        self._on_write = on_write
        self._models = models
        self._waiting: dict[str, list[_Waiting]] = {}
        self._conflicts: dict[str, int] = {}
        self._flying: frozenset[str] = frozenset()
        self._work: asyncio.Task[None] | None = None
        self._urgent = asyncio.Event()

    async def apply(self, model_id: str, change: Change) -> ModelRecord | None:
        """Returns what holds after the change; see `Registry.update`."""
        if model_id not in self._waiting and model_id not in self._flying:
            before = self._shown(model_id)
            if not self._differs(model_id, before, change(before)):
                return before
        done = self._enqueue(model_id, change)
        self._urgent.set()
        return await done

    def post(self, model_id: str, change: Change) -> None:
        """Applies a change that nobody waits for, soon; that it could not be applied is logged."""

        def end(done: asyncio.Future[ModelRecord | None]) -> None:
            if not done.cancelled() and (error := done.exception()):
                log.warning("change not registered", model=model_id, error=str(error))

        self._enqueue(model_id, change).add_done_callback(end)

    async def settled(self) -> None:
        """Waits until nothing waits to be written."""
        while self._work is not None:
            await asyncio.wait({self._work})

    async def close(self) -> None:
        """Gives up what waits."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    def _enqueue(self, model_id: str, change: Change) -> asyncio.Future[ModelRecord | None]:
        done: asyncio.Future[ModelRecord | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(model_id, []).append(_Waiting(change, done))
        if self._work is None:
            self._work = asyncio.create_task(self._write(), name="write records")
        return done

    async def _write(self) -> None:
        try:
            while self._waiting:
                await self._linger()
                if len(self._waiting) <= MAX_BATCH_TXNS:  # what remains behind it may be urgent
                    self._urgent.clear()
                await self._write_batch()
        finally:
            self._work = None
            for waiting in self._waiting.values():
                _give_up(waiting)
            self._waiting.clear()
            self._conflicts.clear()

    async def _linger(self) -> None:
        """Waits for more changes until somebody waits for one of them."""
        if not self._urgent.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_SECONDS):
                    await self._urgent.wait()

    async def _write_batch(self) -> None:
        taken: dict[str, tuple[list[_Waiting], list[ModelRecord | None]]] = {}
        txns: list[Txn] = []
        for model_id in list(self._waiting)[:MAX_BATCH_TXNS]:
            waiting, steps = self._composed(model_id)
            if not waiting or not self._differs(model_id, self._shown(model_id), steps[-1]):
                self._conflicts.pop(model_id, None)
                _end(waiting, steps)
                continue
            after = steps[-1]
            taken[model_id] = (waiting, steps)
            operation = self._models.delete(model_id) if after is None else self._models.put(model_id, after)
            txns.append(Txn([self._models.compare(model_id)], [operation]))
        if not txns:
            return
        self._flying = frozenset(taken)
        started = time.monotonic()
        try:
            results = await self._send(txns)
        except asyncio.CancelledError:
            for waiting, _ in taken.values():
                _give_up(waiting)
            raise
        finally:
            self._flying = frozenset()
        failures = sum(not isinstance(result, TxnResult) for result in results)
        self._on_write((time.monotonic() - started) * 1000, failures)
        restored = await self._restored(taken, results)
        for (model_id, (waiting, steps)), txn, result in zip(taken.items(), txns, results, strict=True):
            if isinstance(result, TxnResult):
                if restored and not result.succeeded:
                    self._waiting[model_id] = waiting + self._waiting.get(model_id, [])
                    self._urgent.set()
                    continue
                self._learn(model_id, waiting, steps, txn, result)
            else:
                self._conflicts.pop(model_id, None)
                _fail(waiting, RegistryUnavailableError(f"the registry is not available: {result}"))

    async def _restored(self, model_ids: Iterable[str], results: Iterable[TxnResult | Exception]) -> bool:
        """Whether records were missing because the store has lost its content; they are there again then."""
        missing = any(
            isinstance(result, TxnResult)
            and not result.succeeded
            and self._shown(model_id)
            and result.current.get(self._models.key(model_id)) is None
            for model_id, result in zip(model_ids, results, strict=True)
        )
        try:
            return missing and await self._models.restored()
        except StoreError as error:
            log.warning("registry not read again", error=str(error))
            return True

    async def _send(self, txns: list[Txn]) -> list[TxnResult | Exception]:
        """Results, or why there is none: what the store refuses does not take along what it would accept."""
        try:
            return list(await self._store.txn_each(txns))
        except (StoreUnavailableError, StoreAuthError) as error:
            return [error] * len(txns)
        except Exception as error:
            if not isinstance(error, StoreError):
                log.exception("records not written")
            if len(txns) == 1:
                return [error]
        half = len(txns) // 2
        return await self._send(txns[:half]) + await self._send(txns[half:])

    def _composed(self, model_id: str) -> tuple[list[_Waiting], list[ModelRecord | None]]:
        """Takes the changes that wait for a model, and what each of them makes of the record."""
        record = self._shown(model_id)
        waiting, steps = [], []
        for one in self._waiting.pop(model_id):
            if one.done.done():
                continue
            try:
                record = one.change(record)
            except Exception as error:  # noqa: BLE001 - it is the caller's, who gets it
                one.done.set_exception(error)
                continue
            waiting.append(one)
            steps.append(record)
        return waiting, steps

    def _learn(
        self,
        model_id: str,
        waiting: list[_Waiting],
        steps: list[ModelRecord | None],
        txn: Txn,
        result: TxnResult,
    ) -> None:
        if result.succeeded:
            self._conflicts.pop(model_id, None)
            self._models.adopt(txn.operations[0], result.revision)
            _end(waiting, steps)
            return
        self._models.learn(result.current, result.revision)
        lost = self._conflicts[model_id] = self._conflicts.get(model_id, 0) + 1
        if lost < MAX_CONFLICTS:
            self._waiting[model_id] = waiting + self._waiting.get(model_id, [])
            self._urgent.set()
            return
        del self._conflicts[model_id]
        text = f"the record of model {model_id} was changed {lost} times by others meanwhile"
        _fail(waiting, RegistryUnavailableError(text))

    def _shown(self, model_id: str) -> ModelRecord | None:
        row = self._models.get(model_id)
        return row.value if row else None

    def _differs(self, model_id: str, before: ModelRecord | None, after: ModelRecord | None) -> bool:
        return after != before or (after is None and self._models.is_corrupt(model_id))


def _end(waiting: list[_Waiting], steps: list[ModelRecord | None]) -> None:
    for one, record in zip(waiting, steps, strict=True):
        if not one.done.done():
            one.done.set_result(record)


def _fail(waiting: list[_Waiting], error: Exception) -> None:
    for one in waiting:
        if not one.done.done():
            one.done.set_exception(error)


def _give_up(waiting: list[_Waiting]) -> None:
    for one in waiting:
        one.done.cancel()

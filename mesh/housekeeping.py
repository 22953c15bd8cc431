"""What only one instance, the leader, does for all.

It forgets instances that are gone for good, corrects records that cannot be right, and has models loaded
where there is room for them.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from itertools import chain

import structlog

from mesh import copies, proactive, references, repair
from mesh.constraints import TypeConstraints
from mesh.errors import MeshError
from mesh.proactive import Load
from mesh.registry import Registry
from store.base import Compare, Delete
from store.errors import StoreError
from store.records import InstanceRecord, ModelRecord, VModelRecord
from store.table import Entry

PERIOD_SECONDS = 30.0
SWEEP_SECONDS = 120.0
"""How often all models are looked at, for the first time so long after an instance began to lead."""
LATELY_MS = 7_200_000
"""Soon after an instance has become ready, what was used or wanted within two hours is loaded: there may have
been nobody who could. A new model that is to be loaded counts as used an hour ago."""
JOINED_SECONDS = 3.0
"""After an instance has become ready, so that several that start together are one."""
GONE_SECONDS = 600.0
"""An instance that was not seen for ten minutes does not come back; until then its copies are only ignored.
"""

log = structlog.get_logger(__name__)
Miscount = tuple[int, int]
"""References that a model's record counts, and those that there are."""


class Housekeeper:
    """Run `run` as a task on every instance; it acts on the leader's. `load` has a model loaded."""

    def __init__(
        self,
        registry: Registry,
        *,
        load: Callable[[str, int], Awaitable[None]],
        constraints: Callable[[], TypeConstraints],
        failure_terms: copies.FailureTerms,
        now: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._load = load
        self._constraints = constraints
        self._failure_terms = failure_terms
        self._now = now
        self._monotonic = monotonic
        self._missing: dict[str, float] = {}
        self._miscounted: dict[str, Miscount] = {}
        self._loading: asyncio.Task[None] | None = None
        self._joined = asyncio.Event()
        registry.instances.subscribe(self._on_instance)

    async def run(self) -> None:
        """Looks again and again, until cancelled."""
        swept = self._monotonic()
        try:
            while True:
                joined = await self._pause()
                # Everybody notes who is missing, so that a new leader need not begin to wait.
                self._note_missing(id_ for id_, _ in self._registry.instances.items())
                if not self._registry.is_leader():
                    swept = self._monotonic()
                    continue
                try:
                    await self.prune()
                    if self._monotonic() - swept >= SWEEP_SECONDS:
                        swept = self._monotonic()
                        await self.sweep()
                    elif joined:
                        await self.sweep(since=self._now() - LATELY_MS)
                except (MeshError, StoreError) as error:
                    log.warning("housekeeping not finished, it goes on later", error=str(error))
                except Exception:
                    # No record, however odd, may end the process, and that of the next leader.
                    log.exception("housekeeping not finished, it goes on later")
        finally:
            if self._loading:
                self._loading.cancel()

    async def prune(self) -> None:
        """Takes instances that are gone for good out of all records. Raises MeshError or StoreError."""
        snapshot = await self._registry.store.range(self._registry.instances.prefix)
        for kv in snapshot.items:
            if not kv.lease:
                log.warning("instance record without a lease removed", key=kv.key)
                await self._registry.store.txn([Compare(kv.key, kv.mod_revision)], [Delete(kv.key)])
        self._note_missing(kv.key.removeprefix(self._registry.instances.prefix) for kv in snapshot.items)
        for instance_id, since in list(self._missing.items()):
            if self._monotonic() - since < GONE_SECONDS:
                continue
            models = self._registry.holdings(instance_id)
            log.info("forgetting an instance", instance=instance_id, models=len(models))
            await self._registry.update_many(models, copies.vanished(instance_id))
            del self._missing[instance_id]

    async def sweep(self, *, since: int = 0) -> None:
        """Corrects records and begins to load ahead what was used or wanted since then. Raises MeshError."""
        models = [(id_, row.value) for id_, row in self._registry.models.items()]
        vmodels = [row.value for _, row in self._registry.vmodels.items()]
        instances = {id_: row.value for id_, row in self._registry.instances.items()}
        now = self._now()
        # In a thread: with many models each of these takes longer than a request should wait.
        impossible = await asyncio.to_thread(_impossible, models, now)
        miscounted = await asyncio.to_thread(_miscounted, models, vmodels)
        if impossible:
            log.warning("correcting impossible times", models=impossible[:10], count=len(impossible))
            await self._registry.update_many(impossible, lambda record: repair.plausible(record, now))
        await self._recount(miscounted)
        if self._loading is None or self._loading.done():
            recent = [(id_, record) for id_, record in models if record.last_used >= since]
            loads = await asyncio.to_thread(
                proactive.plan, recent, instances, self._constraints(), now, self._failure_terms
            )
            slots = sum(record.load_slots for record in instances.values() if record.ready)
            if loads:
                self._loading = asyncio.create_task(self._load_ahead(loads, max(1, slots)))

    async def loaded_ahead(self) -> None:
        """Waits for the end of what `sweep` has begun."""
        if self._loading:
            await self._loading

    async def _pause(self) -> bool:
        """Waits for the next look; returns whether it comes early, because an instance has become ready."""
        try:
            async with asyncio.timeout(PERIOD_SECONDS):
                await self._joined.wait()
        except TimeoutError:
            return False
        await asyncio.sleep(JOINED_SECONDS)
        self._joined.clear()
        return True

    def _on_instance(
        self, _id: str, before: Entry[InstanceRecord] | None, now: Entry[InstanceRecord] | None
    ) -> None:
        if now and now.value.ready and not (before and before.value.ready):
            self._joined.set()

    def _note_missing(self, present: Iterable[str]) -> None:
        there, now = set(present), self._monotonic()
        self._missing = {
            id_: self._missing.get(id_, now) for id_ in self._registry.holders() if id_ not in there
        }

    async def _recount(self, miscounted: dict[str, Miscount]) -> None:
        """Corrects counts that are wrong for the second time: one table may lag behind the other."""
        settled = [id_ for id_, counts in miscounted.items() if self._miscounted.get(id_) == counts]
        self._miscounted = miscounted
        if self._registry.vmodels.corrupt:
            return  # nobody knows what those refer to
        for model_id in settled:
            counted, actual = miscounted[model_id]
            log.warning("correcting references", model=model_id, counted=counted, actual=actual)

            def change(
                record: ModelRecord | None, counted: int = counted, actual: int = actual
            ) -> ModelRecord | None:
                if record is None or record.refs != counted:
                    return record
                return references.counted(record, actual - counted)

            await self._registry.update(model_id, change)

    async def _load_ahead(self, loads: list[Load], slots: int) -> None:
        reasons = Counter(load.reason.name.lower() for load in loads)
        log.info("loading ahead", **reasons)
        pending = iter(loads)

        async def work() -> None:
            for load in pending:
                try:
                    await self._load(load.model_id, load.last_used)
                except MeshError as error:
                    log.info("not loaded ahead", model=load.model_id, error=str(error))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(slots, len(loads))):
                tasks.create_task(work())


def _impossible(models: list[tuple[str, ModelRecord]], now: int) -> list[str]:
    return [model_id for model_id, record in models if not repair.is_plausible(record, now)]


def _miscounted(models: list[tuple[str, ModelRecord]], vmodels: list[VModelRecord]) -> dict[str, Miscount]:
    actual = Counter(chain.from_iterable(map(references.referred, vmodels)))
    return {id_: (record.refs, actual[id_]) for id_, record in models if record.refs != actual.get(id_, 0)}

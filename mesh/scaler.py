"""Adds copies where they are wanted and gives up those that are not: carries out what `mesh.scaling` decides.

Each instance looks after its own copies; only the fewest copies that a model shall have are the leader's
matter, for nobody holds a copy that is missing.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import structlog

from mesh import copies, repair, scaling
from mesh.ensure import Ensurer
from mesh.errors import MeshError, RegistryUnavailableError
from mesh.journal import Journal
from mesh.loading import Loader
from mesh.metrics import PolicyMetrics
from mesh.registry import Registry
from mesh.scaling import Held, ScalingTerms, Situation, Usage
from store.records import NOTHING, ModelRecord
from store.table import Entry

SHRINK_SECONDS = 60.0
SPREAD_SECONDS = 15.0
KEEP_SECONDS = 5.0
"""How often surplus copies are looked for, fuller instances hand copies over, and missing ones are made."""
SPREAD_MS = 30_000
"""Copies are handed over for so long before it is looked again how full the others are."""
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 10.0, 300.0
"""Pauses before a copy that could not be had is tried again."""
IN_USE_MS = 3_600_000
"""What was used so lately is loaded again at once when its copy is lost."""
BACK_AT_A_TIME = 8
TOO_FEW = "it has fewer copies than it shall have"

log = structlog.get_logger(__name__)


class Scaler:
    """Run `run` as a task on every instance."""

    def __init__(
        self,
        registry: Registry,
        loader: Loader,
        ensurer: Ensurer,
        *,
        terms: ScalingTerms,
        metrics: PolicyMetrics,
        journal: Journal,
        now: Callable[[], int],
    ) -> None:
        self.usage = Usage(terms)
        self._registry = registry
        self._loader = loader
        self._ensurer = ensurer
        self._terms = terms
        self._metrics = metrics
        self._journal = journal
        self._now = now
        self._own_id = registry.instance_id
        self._looked = now()
        self._going: set[str] = set()
        self._kept: set[str] = set()
        """Models that shall always have copies."""
        self._adding: dict[str, asyncio.Task[None]] = {}
        self._resting: dict[str, tuple[int, float]] = {}
        """Model id -> (when more copies may be tried again, in ms since 1970; pause in seconds)."""
        self._returning: set[asyncio.Task[None]] = set()
        self._closing = False
        registry.models.subscribe(self._on_model)

    def is_going(self, model_id: str) -> bool:
        """Whether this instance is just giving up its copy."""
        return model_id in self._going

    async def run(self) -> None:
        """Looks again and again, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._every(self._terms.look_seconds, self.grow))
                tasks.create_task(self._every(SHRINK_SECONDS, self.shrink))
                tasks.create_task(self._every(SPREAD_SECONDS, self.spread))
                tasks.create_task(self._every(KEEP_SECONDS, self.keep))
        finally:
            self._closing = True
            for task in (*self._adding.values(), *self._returning):
                task.cancel()

    async def settled(self) -> None:
        """Waits for the copies that are being added or loaded again."""
        await asyncio.gather(*self._adding.values(), *self._returning)

    async def grow(self) -> None:
        """Begins to add copies of what is in use here."""
        now = self._now()
        elapsed, self._looked = now - self._looked, now
        used = self.usage.look(elapsed, now)
        if len(self._registry.instances) < 2:  # noqa: PLR2004 - there is nobody else
            return
        situations = _Situations(self._ensurer)
        for model_id in used:
            record = self._registry.peek(model_id)
            if record is None or not self._may_add(model_id) or not self._loader.is_loaded(model_id):
                continue
            more = scaling.more(
                self.usage.uses[model_id],
                record,
                situations.of(record.type),
                own_id=self._own_id,
                terms=self._terms,
                now=now,
            )
            if more:
                self._metrics.scaling.labels(more.reason.name).inc(more.count)
                self._add(model_id, more.count, more.last_used, more.excluded, more.reason.value)

    async def keep(self) -> None:
        """On the leader: begins to add the copies that models shall always have."""
        if not self._registry.is_leader():
            return
        situations = _Situations(self._ensurer)
        for model_id in list(self._kept):
            record = self._registry.peek(model_id)
            if record is None or not self._may_add(model_id):
                continue
            suitable = situations.of(record.type).candidates
            live = sum(candidate.instance_id in record.instances for candidate in suitable)
            missing = min(record.min_copies, len(suitable)) - live
            if missing <= 0 and record.shortfall:
                self._registry.post(model_id, copies.short(""))
            if missing > 0:
                self._add(model_id, missing, record.last_used, frozenset(), TOO_FEW)

    async def shrink(self) -> None:
        """Gives up copies that are not needed where memory is short. Raises RegistryUnavailableError."""
        for held in self._held().values():
            situation = Situation(self._ensurer.suitable(held[0].record.type))
            going = scaling.fewer(
                held,
                situation,
                own_id=self._own_id,
                capacity=self._loader.cache.capacity.memory,
                terms=self._terms,
                now=self._now(),
            )
            for model_id, reason in going:
                if await self.give_up(model_id, reason.value):
                    log.info("copy given up", model=model_id, reason=reason.name)
                    self._metrics.scaling.labels(reason.name).inc()

    async def spread(self) -> None:
        """Hands copies to emptier instances. Raises RegistryUnavailableError."""
        if self._loader.pending:
            return
        began = self._now()
        for held in self._held().values():
            model_type = held[0].record.type
            situation = Situation(self._ensurer.suitable(model_type))
            moves = scaling.surplus(held, situation, own_id=self._own_id, now=self._now())
            others = {each.instance_id for each in situation.candidates} - moves.targets
            for model_id in moves.models:
                if self._now() - began > SPREAD_MS:
                    return
                await self._hand_over(model_id, others)

    def bring_back(self, lost: Iterable[tuple[str, int]]) -> None:
        """Begins to load again models that were lost, with their last use, of those that are in use."""
        since = self._now() - IN_USE_MS
        wanted = [(last_used, model_id) for model_id, last_used in lost if last_used >= since]
        if wanted and not self._closing:
            log.info("loading again what was lost", models=len(wanted))
            self._begin_bring_back(sorted(wanted, reverse=True))

    def evicted(self, model_id: str, last_used: int) -> None:
        """Begins to load on another instance what had to make room here, where there is room.

        Not what has only just come: where models come and go all the time that would be work for nothing.
        """
        record = self._registry.peek(model_id)
        if record is None or len(self._returning) >= BACK_AT_A_TIME:
            return
        loaded = record.loaded.get(self._own_id, self._now())
        if self._now() - loaded <= 2 * self._loader.load_timeout_ms:
            return
        if any(id_ != self._own_id and self._registry.live(id_) for id_ in record.instances):
            return
        situation = Situation(self._ensurer.suitable(record.type))
        size = record.size or NOTHING
        if situation.free_share >= scaling.SCARCE and any(
            size.fits(each.free) for each in situation.candidates if each.instance_id != self._own_id
        ):
            self._begin_bring_back([(last_used, model_id)])

    def bring_back_from(self, instance_id: str) -> None:
        """Begins to load again what only an instance had that has died."""
        lost = []
        for model_id in self._registry.holdings(instance_id):
            record = self._registry.peek(model_id)
            if record is None or any(map(self._registry.live, record.instances)):
                continue
            if instance_id in record.loaded:
                # The record's last use is behind by as much as it may be.
                lost.append((model_id, min(record.last_used + repair.STALE_USE_MS, self._now())))
        self.bring_back(lost)

    def _begin_bring_back(self, wanted: list[tuple[int, str]]) -> None:
        task = asyncio.create_task(self._bring_back(wanted), name="bring back")
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    async def _bring_back(self, wanted: list[tuple[int, str]]) -> None:
        pending = iter(wanted)

        async def work() -> None:
            for last_used, model_id in pending:
                try:
                    await self._ensurer.ensure(model_id, last_used=last_used, urgent=False)
                except MeshError as error:
                    log.info("not loaded again", model=model_id, error=str(error))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(BACK_AT_A_TIME, len(wanted))):
                tasks.create_task(work())

    async def give_up(self, model_id: str, why: str) -> bool:
        """Takes the copy of this instance away, if another one can serve and there are as many as shall be.

        Raises RegistryUnavailableError.
        """
        gone = False
        last_used = self._loader.cache.last_used(model_id)

        def change(record: ModelRecord | None) -> ModelRecord | None:
            nonlocal gone
            if record is None:
                gone = False
                return None
            others = sum(id_ != self._own_id and self._registry.live(id_) for id_ in record.loaded)
            gone = others >= max(1, record.min_copies)
            return copies.gone(self._own_id, now=self._now(), last_used=last_used)(record) if gone else record

        self._going.add(model_id)
        try:
            await self._registry.update(model_id, change)
            if gone:
                self._loader.unload(model_id, why=why)
        finally:
            self._going.discard(model_id)
        return gone

    async def _hand_over(self, model_id: str, others: set[str]) -> None:
        copy = self._loader.cache.get(model_id)
        if copy is None or model_id in self._adding:
            return
        try:
            await self._ensurer.add_copies(model_id, 1, last_used=copy.last_used, excluded=others)
        except MeshError as error:
            log.info("copy not handed over", model=model_id, error=str(error))
            return
        if await self.give_up(model_id, "it was handed to an emptier instance"):
            log.info("copy handed over", model=model_id)
            self._metrics.scaling.labels("SPREAD").inc()

    def _held(self) -> dict[str, list[Held]]:
        """Loaded copies that may go, by the type of their models."""
        held: dict[str, list[Held]] = {}
        for copy in self._loader.cache.copies():
            record = self._registry.peek(copy.model_id)
            if record is None or not self._loader.is_loaded(copy.model_id) or copy.held:
                continue
            use = self.usage.uses.get(copy.model_id)
            held.setdefault(record.type, []).append(
                Held(copy.model_id, copy.size.memory, copy.last_used, record, use)
            )
        return held

    def _may_add(self, model_id: str) -> bool:
        rest = self._resting.get(model_id)
        return model_id not in self._adding and (rest is None or rest[0] <= self._now())

    def _add(self, model_id: str, count: int, last_used: int, excluded: frozenset[str], reason: str) -> None:
        log.info("adding copies", model=model_id, count=count, reason=reason)
        self._journal.note(model_id, f"{count} more wanted", reason)
        task = asyncio.create_task(
            self._add_copies(model_id, count, last_used, excluded), name=f"add copies of {model_id}"
        )
        self._adding[model_id] = task
        task.add_done_callback(lambda _: self._adding.pop(model_id, None))

    async def _add_copies(self, model_id: str, count: int, last_used: int, excluded: frozenset[str]) -> None:
        try:
            await self._ensurer.add_copies(model_id, count, last_used=last_used, excluded=excluded)
        except MeshError as error:
            _, pause = self._resting.get(model_id, (0, FIRST_RETRY_SECONDS / 2))
            pause = min(2 * pause, LONGEST_RETRY_SECONDS)
            self._resting[model_id] = (self._now() + round(pause * 1000), pause)
            log.info("no further copy", model=model_id, error=str(error))
            if model_id in self._kept and not isinstance(error, RegistryUnavailableError):
                self._registry.post(model_id, copies.short(str(error)))
        else:
            self._resting.pop(model_id, None)

    async def _every(self, seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except MeshError as error:
                log.warning("scaling not finished, it goes on later", error=str(error))
            except Exception:
                # No record, however odd, may end the process.
                log.exception("scaling not finished, it goes on later")

    def _on_model(
        self, model_id: str, _before: Entry[ModelRecord] | None, now: Entry[ModelRecord] | None
    ) -> None:
        if now and now.value.min_copies:
            self._kept.add(model_id)
        else:
            self._kept.discard(model_id)
        if now is None:
            self._resting.pop(model_id, None)
            self.usage.uses.pop(model_id, None)


class _Situations:
    """What there is for models of each type, worked out once in a look."""

    def __init__(self, ensurer: Ensurer) -> None:
        self._ensurer = ensurer
        self._known: dict[str, Situation] = {}

    def of(self, model_type: str) -> Situation:
        """The instances that may hold models of a type."""
        if model_type not in self._known:
            self._known[model_type] = Situation(self._ensurer.suitable(model_type))
        return self._known[model_type]

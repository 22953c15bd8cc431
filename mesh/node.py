"""One mesh instance: the parts, what connects them, and the tasks that keep them going."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import structlog

from mesh import copies
from mesh.bytes import BytePath, Handler, Miss
from mesh.cache import Standing
from mesh.config import Config
from mesh.constraints import RpcRules, TypeConstraints
from mesh.drain import Drain
from mesh.ensure import Ensurer
from mesh.errors import MeshError, ModelNotFoundError, RegistryUnavailableError, RuntimeDownError
from mesh.explain import Explainer
from mesh.failfast import FailFast
from mesh.guard import RuntimeGuard
from mesh.housekeeping import Housekeeper
from mesh.janitor import Janitor
from mesh.journal import Journal
from mesh.loading import EVICTED, Loader
from mesh.management import ManagementApi
from mesh.metrics import Health, PolicyMetrics
from mesh.misses import MissHandler
from mesh.models import Models
from mesh.peer import Peers, peer_handlers
from mesh.presence import Presence
from mesh.readiness import Readiness
from mesh.registry import Registry
from mesh.routes import VANISHED_SECONDS, Routes
from mesh.runtime import Runtime, RuntimeTerms
from mesh.scaler import Scaler
from mesh.status import StatusReporter
from mesh.vmodels import VModels
from store.base import Store
from store.errors import StoreError
from store.keys import Keyspace
from store.records import InstanceRecord, ModelRecord, Resources
from store.session import Session
from store.table import Entry

USAGE_SECONDS = 1.0
DRAIN_SECONDS = 128.0
"""How long an eviction waits for requests on the copy; the original's time."""
STARTING = "this instance is starting; it has not read the registry yet"
DRAIN_POLL_SECONDS = (0.002, 0.1)

log = structlog.get_logger(__name__)


def epoch_ms() -> int:
    """The wall clock, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Settings:
    """What may change while the instance runs."""

    constraints: TypeConstraints
    rpc_rules: RpcRules


class MeshNode:
    """The policy of one instance. `start`, then run `run` as a task; `stop` in the end."""

    def __init__(
        self,
        config: Config,
        store: Store,
        runtime: Runtime,
        byte_path: BytePath,
        settings: Settings,
        *,
        now: Callable[[], int] = epoch_ms,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.metrics = PolicyMetrics(config.info_metric)
        self.journal = Journal(now)
        self._config = config
        self._store = store
        self._runtime = runtime
        self._now = now
        self._upkeep: set[asyncio.Task[None]] = set()
        self._requests = 0
        self._started = False
        keys = Keyspace("", service=config.service, kv_prefix=config.kv_prefix)
        self.byte_path = byte_path
        self.registry = Registry(
            store,
            keys,
            instance_id=config.instance_id,
            monotonic=monotonic,
            on_write=self.metrics.written,
        )
        self.routes = Routes(self.registry, self.byte_path)
        self.loader = Loader(
            runtime,
            on_loaded=self.routes.add,
            on_evict=self._on_evict,
            note_use=self._note_use,
            drained=self._drained,
            now=now,
            metrics=self.metrics,
        )
        runtime.on_measured = self.metrics.sizing.observe
        self.guard = RuntimeGuard(runtime, self.loader, on_ready=self._on_ready, on_lost=self._on_lost)
        self.session = Session(store, on_renewed=self._on_renewed)
        self.presence = Presence(
            config, self.session, keys.instances, self.loader, terms=lambda: self.guard.terms, now=now
        )
        self.fail_fast = FailFast(config.fail_fast, now(), config.instance_id, self.registry.live)
        self.readiness = Readiness(
            self.registry.instances,
            config.instance_id,
            server_is_ready=lambda: self.guard.terms is not None,
            is_leaving=lambda: self.presence.leaving,
            verdict=lambda: self.fail_fast.verdict,
            tell=self.byte_path.set_ready,
        )
        self.peers = Peers(lambda address: byte_path.channel(f"tcp:{address}", pings=True))
        failure_terms = copies.FailureTerms(config.failure_expiry_ms)
        self.ensurer = Ensurer(
            self.registry,
            runtime,
            self.loader,
            self.guard,
            self.routes,
            self.peers,
            constraints=lambda: self.settings.constraints,
            own_record=self.presence.record,
            failure_terms=failure_terms,
            metrics=self.metrics,
            journal=self.journal,
            fail_fast=self.fail_fast,
            on_unfit=self.readiness.changed,
            now=now,
            monotonic=monotonic,
        )
        self.scaler = Scaler(
            self.registry,
            self.loader,
            self.ensurer,
            terms=config.scaling,
            metrics=self.metrics,
            journal=self.journal,
            now=now,
        )
        self.models = Models(self.registry, self.ensurer, now=now)
        self.vmodels = VModels(
            self.registry, ensure=self.ensurer.warm, now=now, default_owner=config.default_owner
        )
        self.misses = MissHandler(
            config.instance_id,
            self.vmodels,
            self.ensurer,
            self.loader,
            self.guard,
            self.routes,
            now=now,
        )
        self.status = StatusReporter(
            self.registry, no_home=self.ensurer.no_home, is_wanted=self.models.is_wanted
        )
        self.explainer = Explainer(
            self.registry,
            self.loader,
            self.ensurer,
            self.status,
            self.peers,
            self.journal,
            self.scaler.usage,
            constraints=lambda: self.settings.constraints,
            failure_terms=failure_terms,
            own_record=self.presence.record,
            now=now,
        )
        self.janitor = Janitor(self.registry, self.loader, self.ensurer, failure_terms=failure_terms, now=now)
        self.housekeeper = Housekeeper(
            self.registry,
            load=self._load_in_background,
            constraints=lambda: self.settings.constraints,
            failure_terms=failure_terms,
            now=now,
            monotonic=monotonic,
        )
        self.registry.models.subscribe(self._on_model)
        self.registry.instances.subscribe(self._on_instance)

    async def start(self) -> None:
        """Opens the ports, takes the instance id and reads the registry.

        Raises OSError (a port is taken), StartError (the id is) or StoreError.
        """
        self.apply(self.settings)
        management = ManagementApi(self.models, self.vmodels, self.status)
        handlers = (
            management.handlers()
            | self.explainer.handlers()
            | peer_handlers(self._load_for_peer)
            | self.explainer.peer_handlers()
        )
        self.byte_path.start(self._take, {name: self._gated(handle) for name, handle in handlers.items()})
        await self.presence.claim(self._store)
        await self.registry.start()
        # A process of the same name may have been here before; whatever it had loaded is gone.
        await self._forget_own()
        self._started = True
        self.routes.flush()
        self.readiness.start()

    def _take(self, miss: Miss) -> None:
        if self._started:
            self.misses.take(miss)
        else:
            miss.fail(RuntimeDownError.code.value[0], STARTING, RuntimeDownError.retry_after_ms)

    def _gated(self, handle: Handler) -> Handler:
        """The ports are open before the registry is read: until then nobody is told that there is nothing."""

        async def answer(message: bytes) -> bytes:
            if not self._started:
                raise RuntimeDownError(STARTING)
            return await handle(message)

        return answer

    async def run(self) -> None:
        """Keeps everything going until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for work in (
                self.registry.follow,
                self.session.keep,
                self.guard.run,
                self.presence.publish,
                self.vmodels.drive,
                self.janitor.run,
                self.housekeeper.run,
                self.scaler.run,
                self._count_use,
            ):
                tasks.create_task(work(), name=f"{work.__qualname__}")

    async def leave(self) -> None:
        """Tells everybody that this instance takes nothing new, and that its copies will be gone."""
        self.presence.leaving = True
        self.readiness.changed()
        try:
            await self.presence.publish_now()
        except StoreError as error:
            log.warning("departure not published", error=str(error))

    async def drain(self, seconds: float) -> None:
        """After `leave`: has the copies of this instance loaded elsewhere, within that time."""
        await Drain(self.registry, self.loader, self.ensurer).run(seconds)

    async def stop(self, grace_seconds: float) -> None:
        """Ends: serves the requests under way within the grace, then leaves the registry."""
        await self.byte_path.stop(round(grace_seconds * 1000))
        self.misses.close()
        for task in self._upkeep:
            task.cancel()
        await self.models.close()
        await self.ensurer.close()
        await self.loader.close()
        self._note_use()
        last_used = {copy.model_id: copy.last_used for copy in self.loader.cache.copies()}
        self.loader.cache.reset(Resources())  # so that nobody registers again what is being forgotten
        await self.registry.settled()
        try:
            await self._forget_own(last_used)
        except (StoreError, MeshError) as error:
            log.warning("copies not deregistered; the leader does it", error=str(error))
        try:
            await self.session.end()
        except StoreError as error:
            log.warning("not deregistered; others notice when the lease ends", error=str(error))
        await self.registry.close()

    async def _load_for_peer(
        self,
        model_id: str,
        last_used: int,
        urgent: bool,  # noqa: FBT001 - a callback of the peer's calls
        patience_ms: int | None,
    ) -> Resources:
        """Loads a model that another instance has placed here.

        Raises RuntimeDownError where that one did not know yet that this instance leaves.
        """
        if self.presence.leaving:
            raise RuntimeDownError("this instance is leaving")
        deadline = None if patience_ms is None else self._now() + patience_ms
        try:
            return await self.ensurer.load_here(
                model_id, last_used=last_used, urgent=urgent, deadline=deadline
            )
        except RegistryUnavailableError:
            copy = self.loader.cache.get(model_id)
            if copy is None or not self.loader.is_loaded(model_id):
                raise
            return copy.size  # it can serve; that it is there is registered when the registry is back

    def apply(self, settings: Settings) -> None:
        """Puts changed settings in force."""
        self.settings = settings
        self.byte_path.set_rpcs(settings.rpc_rules.rpcs, settings.rpc_rules.allow_other)

    async def _forget_own(self, last_used: Mapping[str, int] = MappingProxyType({})) -> None:
        own = self._config.instance_id
        await self.registry.update_each(
            {
                model_id: copies.vanished(own, last_used=last_used.get(model_id, 0))
                for model_id in self.registry.holdings(own)
            }
        )

    async def _load_in_background(self, model_id: str, last_used: int) -> None:
        await self.ensurer.ensure(model_id, last_used=min(last_used, self._now()), urgent=False)

    def _on_ready(self, terms: RuntimeTerms) -> None:
        self.byte_path.set_methods(terms.methods, terms.allow_any_method)
        self.readiness.changed()
        self.presence.changed()

    def _on_lost(self, lost: list[tuple[str, int]]) -> None:
        self.readiness.changed()
        self.presence.changed()
        self.scaler.bring_back(lost)

    def _on_renewed(self) -> None:
        self._spawn(self._reread())

    async def _reread(self) -> None:
        """The lease was lost: so may have been the store's content."""
        try:
            await self.registry.start()
        except StoreError as error:
            log.warning("registry not read", error=str(error))

    def _on_evict(self, model_id: str, last_used: int, why: str) -> None:
        self.journal.note(model_id, "unloaded", why)
        if why is EVICTED:
            self.scaler.evicted(model_id, last_used)
            if last_used:
                self.metrics.age_at_eviction.observe(max(0, self._now() - last_used))
        self.routes.remove(model_id)
        self.metrics.evictions.inc()
        self.presence.changed()
        self._deregister(model_id, last_used)

    def _deregister(self, model_id: str, last_used: int = 0) -> None:
        gone = copies.gone(self._config.instance_id, now=self._now(), last_used=last_used)

        def change(record: ModelRecord | None) -> ModelRecord | None:
            return record if self.ensurer.is_here(model_id) else gone(record)

        self.registry.post(model_id, change)

    async def _drained(self, model_id: str) -> None:
        pause, deadline = DRAIN_POLL_SECONDS[0], time.monotonic() + DRAIN_SECONDS
        while self.byte_path.in_flight(model_id) and time.monotonic() < deadline:
            await asyncio.sleep(pause)
            pause = min(pause * 2, DRAIN_POLL_SECONDS[1])

    def _on_model(
        self, model_id: str, before: Entry[ModelRecord] | None, now: Entry[ModelRecord] | None
    ) -> None:
        own = self._config.instance_id
        if now:
            self.loader.cache.stand(model_id, Standing(now.value.pinned, now.value.priority))
        if now is None or (before and _is_another(before.value, now.value)):
            if before and self.ensurer.is_here(model_id):
                self.loader.unload(model_id, why="the model was deleted")
        elif self.ensurer.is_loading(model_id) or self.scaler.is_going(model_id):
            return
        elif self.loader.is_loaded(model_id) and own not in now.value.loaded:
            self._spawn(self._register(model_id))
        elif own in now.value.instances and not self.ensurer.is_here(model_id):
            self._deregister(model_id)

    def _on_instance(
        self, instance_id: str, before: Entry[InstanceRecord] | None, now: Entry[InstanceRecord] | None
    ) -> None:
        if instance_id == self._config.instance_id and now is None:
            self.session.doubt()
        moved = before and (now is None or now.value.address != before.value.address)
        if before and moved and instance_id != self._config.instance_id:
            self.peers.forget(before.value.address)
        if before and now is None and self.registry.is_leader():
            self._spawn(self._bring_back())

    async def _bring_back(self) -> None:
        """An instance is gone, unless it was the registry that lost its content: then it is back at once.

        It may have been the leader, and others may have gone for which it can do no more.
        """
        await asyncio.sleep(VANISHED_SECONDS)
        if not self.registry.is_leader():
            return
        for instance_id in self.registry.holders():
            if instance_id not in self.registry.instances:
                self.scaler.bring_back_from(instance_id)

    async def _register(self, model_id: str) -> None:
        """Somebody took our copy out of the registry, but it is here."""
        copy = self.loader.cache.get(model_id)
        if copy is None or not self.loader.is_loaded(model_id):
            return
        try:
            await self.registry.update(
                model_id, copies.loaded(self._config.instance_id, self._now(), copy.size)
            )
        except ModelNotFoundError:
            return
        except MeshError as error:
            log.warning("copy not registered", model=model_id, error=str(error))

    async def _count_use(self) -> None:
        while True:
            await asyncio.sleep(USAGE_SECONDS)
            self._note_use()
            self.presence.count(self._requests)
            self._requests = 0
            self.metrics.instance(self.presence.record(), self._now())
            self.metrics.health(self._health())
            self.metrics.lead(self.registry.census if self.registry.is_leader() else None)

    def _health(self) -> Health:
        return Health(
            ready=bool(self.readiness),
            runtime_ready=self.guard.terms is not None,
            registry_silence=self.session.silence,
            corrupt_records=self.registry.corrupt,
            pending_loads=self.loader.pending,
            instances=len(self.registry.instances),
        )

    def _note_use(self) -> None:
        for model_id, count, last_used in self.byte_path.usage():
            self._requests += count
            self.scaler.usage.note(model_id, count, last_used)
            if not self.loader.cache.touch(model_id, last_used):
                # It served a request just before it went, so its record does not know of that yet.
                self.registry.post(model_id, copies.used(last_used))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._upkeep.add(task)
        task.add_done_callback(self._upkeep.discard)


def _is_another(before: ModelRecord, now: ModelRecord) -> bool:
    """Whether the model was deleted and another one of its name registered, both before we saw it."""
    return (before.type, before.path, before.key) != (now.type, now.path, now.key)

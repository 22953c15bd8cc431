"""Tells the byte path where copies are: turns records into routes, and sends what has changed in batches.

Its own copies are routed as soon as they are loaded and until they are evicted, whatever the registry says
yet; those of others as the registry says, while their instances live.
"""

import asyncio

from mesh.bytes import BytePath, Route
from mesh.registry import Registry
from store.records import InstanceRecord, ModelRecord, VModelRecord
from store.table import Entry

VANISHED_SECONDS = 2.0
"""An instance whose record went without a goodbye is routed to for so long: it is back at once where it was
the registry that lost its content."""


class Routes:
    """The routing table. Create it before the registry starts, so that it sees every row."""

    def __init__(self, registry: Registry, byte_path: BytePath) -> None:
        self._registry = registry
        self._byte_path = byte_path
        self._own: set[str] = set()
        self._assumed: dict[str, set[str]] = {}
        self._vanished: dict[str, InstanceRecord] = {}
        self._models: set[str] = set()
        self._aliases: set[str] = set()
        self._generation = 0
        self._scheduled = False
        registry.models.subscribe(self._on_model)
        registry.vmodels.subscribe(self._on_vmodel)
        registry.instances.subscribe(self._on_instance)

    def own(self, model_id: str) -> bool:
        """Whether this instance's copy is routed."""
        return model_id in self._own

    def add(self, model_id: str) -> None:
        """This instance's copy can serve."""
        self._own.add(model_id)
        self._models.add(model_id)
        self.flush()

    def remove(self, model_id: str) -> None:
        """This instance's copy must not be used from now on."""
        if model_id in self._own:
            self._own.discard(model_id)
            self._models.add(model_id)
            self.flush()

    def assume(self, model_id: str, instance_id: str) -> None:
        """A peer's copy can serve, though the registry, which is away, does not say so until it is back."""
        self._assumed.setdefault(model_id, set()).add(instance_id)
        self._models.add(model_id)
        self.flush()

    def flush(self) -> None:
        """Sends what has changed, now."""
        if not self._models and not self._aliases:
            return
        models = {model_id: self._of_model(model_id) for model_id in self._models}
        aliases = {vmodel_id: self._of_alias(vmodel_id) for vmodel_id in self._aliases}
        self._models.clear()
        self._aliases.clear()
        self._generation += 1
        self._byte_path.update(self._generation, models, aliases)

    def peers(self, model_id: str) -> list[Route]:
        """Copies on other instances that live; those that leave serve as long as nobody else does."""
        record = self._registry.peek(model_id)
        if record is None:
            return []
        staying, leaving = [], []
        assumed = self._assumed.get(model_id, set())
        unrecorded = sorted(assumed - record.instances.keys())
        for instance_id in (*sorted(record.instances, key=record.instances.__getitem__), *unrecorded):
            row = self._registry.instances.get(instance_id)
            instance = row.value if row else self._vanished.get(instance_id)
            if instance_id == self._registry.instance_id or instance is None:
                continue
            loaded = instance_id in record.loaded or instance_id in assumed
            route = Route(instance_id, instance.address, loaded)
            if not instance.shutdown:
                staying.append(route)
            elif route.loaded:
                leaving.append(route)
        served = model_id in self._own or any(route.loaded for route in staying)
        return staying if served else leaving + staying

    def _of_model(self, model_id: str) -> list[Route] | None:
        own = [Route(self._registry.instance_id, None)] if model_id in self._own else []
        return own + self.peers(model_id) or None

    def _of_alias(self, vmodel_id: str) -> list[tuple[str, int]] | None:
        row = self._registry.vmodels.get(vmodel_id)
        return [(row.value.active, 1)] if row else None

    def _on_model(
        self, model_id: str, before: Entry[ModelRecord] | None, now: Entry[ModelRecord] | None
    ) -> None:
        assumed = self._assumed.pop(model_id, None)
        if assumed or (before and before.value.instances) or (now and now.value.instances):
            self._models.add(model_id)
            self._schedule()

    def _on_vmodel(
        self, vmodel_id: str, before: Entry[VModelRecord] | None, now: Entry[VModelRecord] | None
    ) -> None:
        if before is None or now is None or before.value.active != now.value.active:
            self._aliases.add(vmodel_id)
            self._schedule()

    def _on_instance(
        self, instance_id: str, before: Entry[InstanceRecord] | None, now: Entry[InstanceRecord] | None
    ) -> None:
        if before and now:
            same = before.value.address == now.value.address and before.value.shutdown == now.value.shutdown
            if same:
                return
        self._vanished.pop(instance_id, None)
        if before and now is None and not before.value.shutdown:
            self._vanished[instance_id] = before.value
            asyncio.get_running_loop().call_later(VANISHED_SECONDS, self._gone, instance_id, before.value)
        self._reroute(instance_id)

    def _gone(self, instance_id: str, record: InstanceRecord) -> None:
        if self._vanished.get(instance_id) is record:
            del self._vanished[instance_id]
            self._reroute(instance_id)

    def _reroute(self, instance_id: str) -> None:
        self._models |= self._registry.holdings(instance_id)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush_scheduled)

    def _flush_scheduled(self) -> None:
        self._scheduled = False
        self.flush()

"""Wakes the controller when the mesh's registry changes, so that status follows within a moment, not a poll.

Read only. A vmodel record names its object; a model record's id does. When the watch starts, everything found
counts as changed: this is what cleans up after objects that were deleted while no controller ran. What
changes later is looked at twice (`second_look`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from controller.model_id import Source, owner_of
from controller.runtime.reconcile import Request
from controller.second_look import SecondLook
from store.errors import StoreError
from store.records import INSTANCES, KEYS, VMODELS, InstanceRecord, VModelRecord
from store.table import Entry, Table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from store.base import Store
    from store.connection import EtcdConnection
    from store.keys import Keyspace

_log = structlog.get_logger(__name__)

_FIRST_RETRY_S = 0.5
_LAST_RETRY_S = 30.0


@dataclass(frozen=True, slots=True)
class Registry:
    """Where the registry of one namespace's mesh is."""

    connection: EtcdConnection
    keys: Keyspace


class RegistryTriggers:
    """Follows the registry of one namespace's mesh.

    Args:
        namespace: whose objects the requests are for.
        locate: returns where the registry is; None while the etcd Secret is missing or cannot be read.
        connect: opens the store.
        wake: called for each object whose model or vmodel changed.
        pods_changed: called with the namespace when models or memory of its pods changed.
    """

    def __init__(
        self,
        namespace: str,
        *,
        locate: Callable[[], Registry | None],
        connect: Callable[[EtcdConnection], Awaitable[Store]],
        wake: Callable[[Source, Request], None],
        pods_changed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._pods_changed = pods_changed
        self._namespace = namespace
        self._locate = locate
        self._connect = connect
        self._wake = wake
        self._wake_twice = SecondLook[tuple[Source, Request]](lambda woken: wake(*woken))
        self._moved = asyncio.Event()
        self._vmodels: Table[VModelRecord] | None = None
        self._instances: Table[InstanceRecord] | None = None

    def registered(self, vmodel: str) -> bool | None:
        """Tells whether the registry has a vmodel; None while it cannot be read."""
        return None if self._vmodels is None else vmodel in self._vmodels

    def instances(self) -> list[InstanceRecord] | None:
        """Returns the records of the mesh's instances; None while they cannot be read."""
        return None if self._instances is None else [entry.value for _, entry in self._instances.items()]

    def relocate(self) -> None:
        """Looks again where the registry is: the Secret or the configuration changed."""
        self._moved.set()

    async def run(self) -> None:
        """Follows the registry until cancelled, through losses of the store and moves to another."""
        try:
            await self._follow_wherever_it_is()
        finally:
            self._wake_twice.close()

    async def _follow_wherever_it_is(self) -> None:
        while True:
            self._moved.clear()
            registry = self._locate()
            if registry is None:
                await self._moved.wait()
                continue
            async with asyncio.TaskGroup() as group:
                follower = group.create_task(self._follow_with_retries(registry))
                while self._locate() == registry:
                    await self._moved.wait()
                    self._moved.clear()
                follower.cancel()

    async def _follow_with_retries(self, registry: Registry) -> None:
        delay = _FIRST_RETRY_S
        while True:
            try:
                store = await self._connect(registry.connection)
            except (StoreError, OSError) as error:
                _log.warning(
                    "registry unreachable", namespace=self._namespace, error=str(error), retry_s=delay
                )
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LAST_RETRY_S)
                continue
            delay = _FIRST_RETRY_S
            try:
                await self._follow(store, registry.keys)
            except StoreError as error:
                _log.warning("registry lost", namespace=self._namespace, error=str(error), retry_s=delay)
                await asyncio.sleep(delay)
            finally:
                await store.close()

    async def _follow(self, store: Store, keys: Keyspace) -> None:
        vmodels = Table(store, keys.vmodels, VMODELS)
        models = Table(store, keys.models, KEYS)
        vmodels.subscribe(self._vmodel_changed)
        models.subscribe(self._model_changed)
        await vmodels.start()
        await models.start()
        instances = Table(store, keys.instances, INSTANCES)
        instances.subscribe(self._instance_changed)
        await instances.start()
        self._vmodels, self._instances = vmodels, instances
        self._pods_changed(self._namespace)
        try:
            async with asyncio.TaskGroup() as group:
                for following in (vmodels.follow(), models.follow(), instances.follow()):
                    group.create_task(following)
        finally:
            self._vmodels = self._instances = None
            self._pods_changed(self._namespace)

    def _vmodel_changed(
        self,
        name: str,
        before: Entry[VModelRecord] | None,
        now: Entry[VModelRecord] | None,
    ) -> None:
        entry = now or before
        if entry is None:
            return
        owner = entry.value.owner or Source.PREDICTOR
        try:
            source = Source(owner)
        except ValueError:
            _log.debug("vmodel of an owner we do not serve", vmodel=name, owner=owner)
            return
        self._tell(source, name, is_new=before is None)

    def _model_changed(self, model_id: str, before: Entry[None] | None, now: Entry[None] | None) -> None:
        if now is None:
            return
        if (owner := owner_of(model_id)) is None:
            _log.debug("model that no object describes", model=model_id)
            return
        source, name = owner
        self._tell(source, name, is_new=before is None)

    def _tell(self, source: Source, name: str, *, is_new: bool) -> None:
        request = Request(self._namespace, name)
        if is_new:
            self._wake(source, request)
        else:
            self._wake_twice((source, request))

    def _instance_changed(
        self,
        _: str,
        before: Entry[InstanceRecord] | None,
        now: Entry[InstanceRecord] | None,
    ) -> None:
        if self._instances is not None and _held(before) != _held(now):
            self._pods_changed(self._namespace)


def _held(entry: Entry[InstanceRecord] | None) -> tuple[object, ...] | None:
    """What of an instance's record says which models it holds; the rest changes all the time."""
    if entry is None:
        return None
    record = entry.value
    return record.count, record.used, record.capacity, record.labels

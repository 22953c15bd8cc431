"""What a benchmark of the controller sees: statuses, the mesh's registry, and which of them tell the same."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from api.v1beta1 import InferenceService
from bench.cluster import Cluster
from bench.control_plane import OWN_NAMESPACE, Write
from controller.model_id import owner_of
from controller.runtime import HttpClient
from store.connection import connect, parse_connection
from store.keys import Keyspace
from store.records import MODELS, ModelRecord
from store.table import Entry, Table

STATUS = "inferenceservices/status"
LOADED, STANDBY = "Loaded", "Standby"
PASSING_SECONDS = 0.5
"""A model that is evicted and loaded again within this time has not changed for users."""


@dataclass(slots=True)
class Shown:
    """What the statuses of InferenceServices show, as a watch sees it."""

    states: dict[str, str] = field(default_factory=dict)
    """Name: state of the active model, of an object that is ready."""
    history: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    """Name: when (seconds of `time.perf_counter`) each new state was seen."""

    def see(self, obj: Mapping[str, Any]) -> None:
        """Notes a version of an object."""
        name, status = obj["metadata"]["name"], obj.get("status") or {}
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))
        state = status.get("modelStatus", {}).get("states", {}).get("activeModelState", "")
        state = state if ready else ""
        if self.states.get(name, "") != state:
            self.states[name] = state
            self.history.setdefault(name, []).append((time.perf_counter(), state))

    def count(self, state: str) -> int:
        """How many objects are in a state."""
        return sum(found == state for found in self.states.values())


@dataclass(slots=True)
class Happened:
    """What the registry said of the models of InferenceServices, as a watch of etcd sees it."""

    since: float
    """When the watch began, in seconds of `time.perf_counter`."""
    changes: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    """Id of the model: when it came into memory (`Loaded`) or left it (`Standby`)."""

    def see(self, model_id: str, before: Entry[ModelRecord] | None, now: Entry[ModelRecord] | None) -> None:
        """Notes a change of a record."""
        was, is_ = bool(before and before.value.loaded), bool(now and now.value.loaded)
        if was != is_ and owner_of(model_id) is not None:
            state = LOADED if is_ else STANDBY
            self.changes.setdefault(model_id, []).append((time.perf_counter(), state))

    def lasting(self) -> dict[str, list[tuple[float, str]]]:
        """The changes without those that were taken back at once, as a status need not show them."""
        return {model_id: _lasting(changes) for model_id, changes in self.changes.items()}

    def out_of_memory(self) -> list[str]:
        """The models that left the memory and did not come back."""
        return [model_id for model_id, changes in self.changes.items() if changes[-1][1] == STANDBY]

    def shows(self, shown: Shown) -> bool:
        """Whether the statuses show all models as they are now."""
        return all(
            shown.states.get(_object(model_id), "") == changes[-1][1]
            for model_id, changes in self.changes.items()
        )


def _object(model_id: str) -> str:
    """Name of the InferenceService of a model."""
    owner = owner_of(model_id)
    return owner[1] if owner else ""


def _lasting(changes: list[tuple[float, str]]) -> list[tuple[float, str]]:
    ends = [when for when, _ in changes[1:]] + [math.inf]
    state = STANDBY if changes[0][1] == LOADED else LOADED
    found = []
    for (when, new), end in zip(changes, ends, strict=True):
        if end - when >= PASSING_SECONDS and new != state:
            found.append((when, new))
            state = new
    return found


def delays(happened: Happened, shown: Shown) -> tuple[list[float], list[str]]:
    """Pairs lasting changes in the registry with the statuses that show them.

    Returns how long each change took to be shown, in seconds (0 where the two watches tell it the other way
    round), and the ids of models of which a change was not shown.
    """
    found, missing = [], []
    for model_id, changes in happened.lasting().items():
        history = iter(shown.history.get(_object(model_id), ()))
        for when, state in changes:
            at = next((at for at, seen in history if at >= happened.since and seen == state), None)
            if at is None:
                missing.append(model_id)
            else:
                found.append(max(0.0, at - when))
    return found, missing


def status_writes(writes: Iterable[Write], names: Iterable[str]) -> dict[str, int]:
    """Counts the status writes of each object; all are there, those without any with 0."""
    counted = Counter(write.name for write in writes if write.resource == STATUS)
    return {name: counted[name] for name in names}


@asynccontextmanager
async def watching(client: HttpClient) -> AsyncIterator[Shown]:
    """Watches the InferenceServices for the time of the block; there are none at its start."""
    shown = Shown()
    page = await client.list(InferenceService.RESOURCE, OWN_NAMESPACE)

    async def follow() -> None:
        watch = client.watch(
            InferenceService.RESOURCE,
            OWN_NAMESPACE,
            resource_version=page.resource_version,
            timeout_seconds=3600,
        )
        async with aclosing(watch):
            async for event in watch:
                if event.type in {"ADDED", "MODIFIED"}:
                    shown.see(event.object)
        raise RuntimeError("the watch of the InferenceServices ended")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(follow())
        yield shown
        task.cancel()


@asynccontextmanager
async def following(mesh: Cluster) -> AsyncIterator[Happened]:
    """Watches the registry for the time of the block."""
    happened = Happened(time.perf_counter())
    store = await connect(parse_connection(f'{{"endpoints": "http://{mesh.etcd.endpoint}"}}'.encode(), {}))
    table = Table(store, Keyspace("", service=OWN_NAMESPACE, kv_prefix="mm").models, MODELS)
    try:
        await table.start()
        table.subscribe(happened.see)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(table.follow())
            yield happened
            task.cancel()
    finally:
        await store.close()

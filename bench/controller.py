"""The controller with 1,000 and with 10,000 InferenceServices, on a real kube-apiserver and a real mesh.

The controller is `modelmesh controller`, with one mesh process and the echo runtime behind it: what it writes
is what it writes on a cluster. Pods do not exist (there is no kubelet and no controller-manager), so the
mesh's address is a setting, and the runtimes' Deployments stay without pods. All processes share a machine,
and the benchmark has two watches of its own: of the InferenceServices and of the mesh's registry.
"""

import argparse
import asyncio
import math
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from api.core import CONFIG_MAP, DEPLOYMENT
from api.v1alpha1 import ServingRuntime
from api.v1beta1 import InferenceService
from bench import figures
from bench.cluster import MIB, Client, Cluster, cluster, register
from bench.control_plane import OWN_NAMESPACE, Controller, ControlPlane, Write, control_plane, named
from controller.config import CONFIG_MAP as CONFIGURATION
from controller.model_id import owner_of
from controller.runtime import HttpClient
from store.connection import connect, parse_connection
from store.keys import Keyspace
from store.records import MODELS, ModelRecord
from store.table import Entry, Table

COMMAND = "make bench-controller"
Measured = list[tuple[str, float, str]]

RUNTIMES = 20
FILLERS = 400
"""Models of nobody, whose loads push models of InferenceServices out of memory."""
MODEL = f"SIZE_{MIB}_0_0"
CREATES_IN_FLIGHT = 16
EVICTIONS = 60
SPARE_MODELS = 20
SPACING_SECONDS = 0.05
"""Between one event of the mesh and the next."""
PASSING_SECONDS = 0.5
"""A model that is evicted and loaded again within this time has not changed for users."""
IDLE_SECONDS = 30
SETTLE_SECONDS = 5
DEADLINE_SECONDS = 900
STATUS = "inferenceservices/status"
LOADED, STANDBY = "Loaded", "Standby"


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


def format_name(number: int) -> str:
    """The model format that the runtime of this number loads."""
    return f"format-{number % RUNTIMES}"


def runtime(number: int) -> dict[str, Any]:
    """A ServingRuntime of one model format."""
    return {
        "apiVersion": ServingRuntime.RESOURCE.api_version,
        "kind": ServingRuntime.RESOURCE.kind,
        **named(f"runtime-{number}"),
        "spec": {
            "multiModel": True,
            "grpcDataEndpoint": "port:8001",
            "grpcEndpoint": "port:8085",
            "supportedModelFormats": [{"name": format_name(number), "version": "1", "autoSelect": True}],
            "containers": [
                {
                    "name": "server",
                    "image": "example.com/server:1",
                    "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
                }
            ],
        },
    }


def inference_service(number: int) -> dict[str, Any]:
    """An InferenceService of a model of 1 MiB that takes no time to load."""
    metadata = named(f"isvc-{number}")["metadata"]
    return {
        "apiVersion": InferenceService.RESOURCE.api_version,
        "kind": InferenceService.RESOURCE.kind,
        "metadata": metadata | {"annotations": {"serving.kserve.io/deploymentMode": "ModelMesh"}},
        "spec": {
            "predictor": {
                "model": {
                    "modelFormat": {"name": format_name(number)},
                    "storage": {"key": "bench", "path": MODEL},
                }
            }
        },
    }


async def until(condition: Callable[[], bool], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Waits for a condition; TimeoutError says which."""
    deadline = time.perf_counter() + seconds
    while not condition():
        if time.perf_counter() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(0.02)


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


@dataclass(slots=True)
class Bench:
    """Everything that runs."""

    mesh: Cluster
    plane: ControlPlane
    controller: Controller
    shown: Shown

    async def fill(self, objects: int) -> float:
        """Creates runtimes and InferenceServices, and waits for all; returns how long it took, in seconds."""
        client = self.plane.client
        begin = time.perf_counter()
        for number in range(RUNTIMES):
            await client.create(ServingRuntime.RESOURCE, runtime(number))
        pending = iter(range(objects))

        async def create() -> None:
            for number in pending:
                await client.create(InferenceService.RESOURCE, inference_service(number))

        await asyncio.gather(*(create() for _ in range(CREATES_IN_FLIGHT)))
        created = time.perf_counter() - begin
        with suppress(TimeoutError):
            await until(lambda: self.shown.count(LOADED) == objects, "all Loaded")
        if (loaded := self.shown.count(LOADED)) < objects:
            raise RuntimeError(f"{loaded} of {objects} are Loaded: {Counter(self.shown.states.values())}")
        deployments = await client.list(DEPLOYMENT, OWN_NAMESPACE)
        if len(deployments.items) != RUNTIMES:
            raise RuntimeError(f"{len(deployments.items)} Deployments for {RUNTIMES} runtimes")
        took = time.perf_counter() - begin
        used = self.controller.cpu_seconds()
        print(f"{objects} objects: created in {created:.1f} s, all Loaded after {took:.1f} s", flush=True)
        print(f"the controller used {1000 * used / objects:.2f} ms of CPU for each", flush=True)
        return took

    def reconciles(self) -> float:
        """InferenceServices that the controller process has reconciled."""
        return self.controller.metric("controller_runtime_reconcile_total", controller="inferenceservice")

    async def quiet(self) -> None:
        """Waits until no controller of the process has anything to do."""
        still = 0
        while still < SETTLE_SECONDS:
            busy = self.controller.metric("workqueue_depth") or self.controller.metric(
                "controller_runtime_active_workers"
            )
            still = 0 if busy else still + 1
            await asyncio.sleep(1)

    async def resync(self, objects: int) -> list[Write]:
        """Has everything reconciled twice without any news, and returns what was written for it.

        First by a change of the configuration that says the same in other words; then by a new controller
        process, which reads everything anew.
        """
        before = len(self.plane.writes())
        client = self.plane.client
        found = await client.get(CONFIG_MAP, CONFIGURATION, OWN_NAMESPACE)
        data = {key: f"{text}\n" for key, text in found["data"].items()}
        done = self.reconciles()
        await client.patch(CONFIG_MAP, CONFIGURATION, OWN_NAMESPACE, {"data": data})
        await until(lambda: self.reconciles() >= done + objects, "all reconciled after the change")
        await self.quiet()
        self.controller.stop()
        await asyncio.to_thread(self.controller.start)
        await until(lambda: self.reconciles() >= objects, "all reconciled after the restart")
        await self.quiet()
        return self.plane.writes()[before:]

    async def idle(self) -> float:
        """What the controller uses of the processors while nothing happens, in cores."""
        before = self.controller.cpu_seconds()
        await asyncio.sleep(IDLE_SECONDS)
        return (self.controller.cpu_seconds() - before) / IDLE_SECONDS

    async def react(self) -> list[float]:
        """Has models leave the memory and come back, one at a time; returns `delays`, in seconds."""
        async with following(self.mesh) as happened, Client(self.mesh.instances) as client:

            async def load(model_id: str) -> None:
                await client.load([model_id])
                await asyncio.sleep(SPACING_SECONDS)
                shows = f"the statuses show what loading {model_id} did"
                await until(lambda: happened.shows(self.shown), shows, 30)

            fillers = [f"filler-{number}" for number in range(FILLERS)]
            await asyncio.to_thread(register, self.mesh.instances, FILLERS, name="filler")
            for filler in fillers:
                if len(happened.changes) >= EVICTIONS:
                    break
                await load(filler)
            for model_id in happened.out_of_memory():
                await load(model_id)
            found, missing = delays(happened, self.shown)
            if missing:
                raise RuntimeError(f"no status ever showed what happened to {', '.join(missing)}")
            return found


@asynccontextmanager
async def running(objects: int) -> AsyncIterator[Bench]:
    """Everything, with nothing to reconcile yet, and room in memory for so many models and a few more."""
    with cluster() as mesh:
        instance = mesh.add(f"--capacity={(objects + SPARE_MODELS) * MIB}")
        folder = mesh.file("control-plane")
        folder.mkdir()
        async with control_plane(folder) as plane:
            await plane.prepare(instance, mesh.etcd)
            controller = plane.controller()
            try:
                await asyncio.to_thread(controller.start)
                async with watching(plane.client) as shown:
                    yield Bench(mesh, plane, controller, shown)
            finally:
                controller.stop()


async def thousand(objects: int = 1_000) -> Measured:
    """From the first create to Loaded, at rest, after events of the mesh, and through resyncs."""
    async with running(objects) as bench:
        took = await bench.fill(objects)
        await bench.quiet()
        to_loaded = status_writes(bench.plane.writes(), [f"isvc-{number}" for number in range(objects)])
        print(f"status writes of an object: {statistics.mean(to_loaded.values()):.2f} on average")
        print(f"written until all were Loaded: {summary(bench.plane.writes())}", flush=True)
        idle = await bench.idle()
        reactions = await bench.react()
        print(f"{len(reactions)} events to status: at most {1000 * max(reactions):.0f} ms", flush=True)
        await bench.quiet()
        rss = bench.controller.peak_rss_mib()
        resynced = await bench.resync(objects)
        print(f"written for two resyncs: {summary(resynced)}")
        return [
            ("reconcile_1k_s", took, "s"),
            ("status_writes_to_loaded", max(to_loaded.values()), "writes"),
            ("writes_per_resync", len(resynced), "writes"),
            ("rss_1k_mib", max(rss, bench.controller.peak_rss_mib()), "MiB"),
            ("idle_cpu_cores", idle, "cores"),
            ("event_to_status_p50_ms", 1000 * statistics.median(reactions), "ms"),
        ]


async def many(objects: int = 10_000) -> Measured:
    """The memory of the controller that saw all come, and of one that finds all there."""
    async with running(objects) as bench:
        await bench.fill(objects)
        rss = bench.controller.peak_rss_mib()
        bench.controller.stop()
        await asyncio.to_thread(bench.controller.start)
        await until(lambda: bench.reconciles() >= objects, "all reconciled after the restart")
        again = bench.controller.peak_rss_mib()
        print(f"most resident: {rss:.0f} MiB, after a restart {again:.0f} MiB")
        return [("rss_10k_mib", max(rss, again), "MiB")]


def summary(writes: Iterable[Write]) -> str:
    """How many writes of what, in words."""
    counted = Counter(f"{write.verb} {write.resource}" for write in writes)
    return ", ".join(f"{count} {what}" for what, count in counted.most_common()) or "no writes"


SUITES: dict[str, Callable[[], Awaitable[Measured]]] = {"thousand": thousand, "many": many}


async def run(names: Iterable[str]) -> None:
    """Runs suites in turn, and saves the figures of each as soon as they are there."""
    for name in names:
        print(name, flush=True)
        figures.save("controller", await SUITES[name](), COMMAND)


def main() -> None:
    """Measures and writes bench/results/controller.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SUITES, default=list(SUITES), help="suites to run")
    asyncio.run(run(parser.parse_args().only))


if __name__ == "__main__":
    main()

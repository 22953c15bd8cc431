"""The controller with 1,000 and with 10,000 InferenceServices, on a real kube-apiserver and a real mesh.

The controller is `modelmesh controller`, with one mesh process and the echo runtime behind it: what it writes
is what it writes on a cluster. Pods do not exist (there is no kubelet and no controller-manager), so the
mesh's address is a setting, and the runtimes' Deployments stay without pods. All processes share a machine,
and the benchmark has two watches of its own: of the InferenceServices and of the mesh's registry.
"""

import argparse
import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from api.core import CONFIG_MAP, DEPLOYMENT
from api.v1alpha1 import ServingRuntime
from api.v1beta1 import InferenceService
from bench import figures
from bench.cluster import MIB, Client, Cluster, cluster, register
from bench.control_plane import OWN_NAMESPACE, Controller, ControlPlane, Write, control_plane, named
from bench.observed import LOADED, Shown, delays, following, status_writes, watching
from controller.config import CONFIG_MAP as CONFIGURATION

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
IDLE_SECONDS = 30
SETTLE_SECONDS = 5
DEADLINE_SECONDS = 900


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

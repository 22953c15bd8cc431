"""What clients notice of faults: three mesh processes under 200 requests/s, of which parts are taken away.

50 models, of which ten have two copies; clients do not try again, and ask the instances that remain. After
each fault registry, caches and model servers must agree.
"""

import argparse
import asyncio
import contextlib
import json
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from api.proto.model_mesh_pb2 import ExplainInstanceRequest, ModelInfo, ModelPolicy, RegisterModelRequest
from api.proto.model_mesh_pb2_grpc import ModelMeshStub
from bench import echo, figures
from bench.cluster import CHANNEL_OPTIONS, MIB, Client, Cluster, Instance, cluster
from bench.simulation import copies
from store.connection import EtcdConnection, connect

COMMAND = "make bench-faults"
MODELS, TWICE = 50, 10
RATE = 200
CAPACITY = 60 * MIB
PATH = f"SIZE_{MIB}_300_10"
"""A third of a second to load."""
SHUTDOWN = {"SHUTDOWN_TIMEOUT_MS": "20000"}
AGREE_SECONDS = 60.0
Measured = list[tuple[str, float, str]]


@dataclass
class Traffic:
    """What the clients of some instances saw."""

    report: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Requests that failed."""
        return int(self.report["requests"] - self.report["ok"])

    def __str__(self) -> str:
        texts = f" {self.report['error_texts']}" if self.failed else ""
        return (
            f"{self.report['requests']} requests, {self.failed} failed, p50 {self.report['p50_ms']:.1f} ms, "
            f"p99 {self.report['p99_ms']:.1f} ms, longest {self.report['max_ms']:.0f} ms{texts}"
        )


@contextlib.asynccontextmanager
async def traffic(instances: Sequence[Instance], seconds: float) -> AsyncIterator[Traffic]:
    """Asks these instances for so long from now; what came of it is known at the end of the block."""
    seen = Traffic()
    process = await asyncio.create_subprocess_exec(
        str(echo.build() / "echo-load"),
        *(f"--target={instance.target}" for instance in instances),
        *(f"--models={MODELS}", f"--rate={RATE}", f"--seconds={seconds}", "--deadline-ms=10000"),
        f"--seed={secrets.randbelow(1 << 32)}",
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield seen
        printed, _ = await process.communicate()
        seen.report = json.loads(printed)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def start(mesh: Cluster, count: int = 3) -> None:
    """Starts instances and loads all models; ten of them twice."""
    for _ in range(count):
        mesh.place(f"--capacity={CAPACITY}", "--load-slots=4", environment=SHUTDOWN)
    await asyncio.gather(*(asyncio.to_thread(instance.start) for instance in mesh.instances))
    async with grpc.aio.insecure_channel(mesh.instances[0].target, options=CHANNEL_OPTIONS) as channel:
        stub: Any = ModelMeshStub(channel)
        for number in range(MODELS):
            policy = ModelPolicy(minCopies=2) if number < TWICE else None
            info = ModelInfo(type="echo", path=PATH)
            await stub.registerModel(
                RegisterModelRequest(modelId=f"model-{number}", modelInfo=info, policy=policy)
            )
    async with Client(mesh.instances) as client:
        await client.load([f"model-{number}" for number in range(MODELS)])
    await agreed(mesh)


async def agreed(mesh: Cluster, *, seconds: float = AGREE_SECONDS) -> float:
    """Waits until registry, caches and model servers agree and all copies are there; returns how long.

    Raises AssertionError that says in what they differ.
    """
    begin = time.monotonic()
    while True:
        try:
            difference = await differences(mesh)
        except (grpc.aio.AioRpcError, OSError) as error:
            difference = [str(error)]
        took = time.monotonic() - begin
        if not difference:
            return took
        if took > seconds:
            raise AssertionError(f"after {took:.0f} s: " + "; ".join(difference[:10]))
        await asyncio.sleep(0.2)


async def differences(mesh: Cluster) -> list[str]:
    """In what registry, caches and model servers differ, or from what there should be."""
    store = await connect(EtcdConnection((mesh.etcd.endpoint,)))
    try:
        prefix = "/mm/modelmesh-serving/v1/registry/"
        records = {
            kv.key.removeprefix(prefix): json.loads(kv.value) for kv in (await store.range(prefix)).items
        }
    finally:
        await store.close()
    found = []
    for number in range(MODELS):
        places = records.get(f"model-{number}", {}).get("loadedIn", {})
        if len(places) < (2 if number < TWICE else 1):
            found.append(f"model-{number} has {len(places)} copies")
    for instance in mesh.instances:
        async with grpc.aio.insecure_channel(instance.target, options=CHANNEL_OPTIONS) as channel:
            stub: Any = ModelMeshStub(channel)
            answer = await stub.explainInstance(ExplainInstanceRequest(), timeout=2)
        own = answer.instance.instanceId
        cached = {model.modelId for model in answer.models if model.phase == "loaded"}
        recorded = {model_id for model_id, record in records.items() if own in record.get("loadedIn", {})}
        found += [f"{own} has {model_id}, unrecorded" for model_id in sorted(cached - recorded)]
        found += [f"{own} is said to have {model_id}" for model_id in sorted(recorded - cached)]
        stats = await asyncio.to_thread(instance.runtime.stats)
        if stats["loaded"] != len(answer.models):
            found.append(f"the server of {own} has {stats['loaded']} models, its cache {len(answer.models)}")
        if stats["over_capacity"] or stats["conflicts"]:
            found.append(f"the server of {own} was asked for what it cannot do: {stats}")
    return found


def others(mesh: Cluster, gone: Instance) -> list[Instance]:
    """All but one."""
    return [instance for instance in mesh.instances if instance is not gone]


async def rollout() -> Measured:
    """All instances are stopped and started, one after the other, as a rolling update does."""
    with cluster() as mesh:
        await start(mesh)
        async with traffic(mesh.instances, 10) as steady:
            pass
        print(f"steady: {steady}", flush=True)
        failed, slowest = 0, 0.0
        for instance in mesh.instances:
            async with traffic(others(mesh, instance), 12) as seen:
                await asyncio.sleep(1)
                begin = time.monotonic()
                await asyncio.to_thread(instance.stop)
                stopped = time.monotonic() - begin
                await asyncio.to_thread(instance.start)
            print(f"{instance.name} gone in {stopped:.1f} s: {seen}", flush=True)
            failed += seen.failed
            slowest = max(slowest, seen.report["p99_ms"])
            await agreed(mesh)
        return [
            ("rollout_failed_requests", failed, "requests"),
            ("rollout_p99_ratio", slowest / steady.report["p99_ms"], "ratio"),
        ]


async def kill() -> Measured:
    """Instances die: first the leader, then another one."""
    with cluster() as mesh:
        await start(mesh)
        failed = 0
        for instance in mesh.instances[:2]:
            async with traffic(others(mesh, instance), 8) as seen:
                await asyncio.sleep(1)
                await asyncio.to_thread(instance.kill)
            print(f"{instance.name} killed: {seen}", flush=True)
            failed += seen.failed
            await asyncio.to_thread(instance.start)
            await agreed(mesh)
        return [("kill_instance_failed_surviving", failed, "requests")]


async def etcd() -> Measured:
    """Etcd restarts, is away for a while, and loses everything."""
    with cluster() as mesh:
        await start(mesh)
        async with traffic(mesh.instances, 24) as away:
            await asyncio.sleep(1)
            await asyncio.to_thread(mesh.etcd.stop)
            await asyncio.sleep(15)
            await asyncio.to_thread(mesh.etcd.start)
        print(f"etcd away for 15 s: {away}", flush=True)
        await agreed(mesh)
        async with traffic(mesh.instances, 20) as wiped:
            await asyncio.sleep(1)
            await asyncio.to_thread(mesh.etcd.stop)
            mesh.etcd.wipe()
            await asyncio.to_thread(mesh.etcd.start)
            converged = await agreed(mesh)
        print(f"etcd wiped, all agree after {converged:.1f} s: {wiped}", flush=True)
        return [
            ("etcd_away_failed_requests", away.failed, "requests"),
            ("etcd_wipe_failed_requests", wiped.failed, "requests"),
            ("etcd_wipe_converged_s", converged, "s"),
        ]


async def server() -> Measured:
    """A model server loses all models, as one does that dies and is back at once."""
    with cluster() as mesh:
        await start(mesh)
        async with traffic(mesh.instances, 10) as seen:
            await asyncio.sleep(1)
            mesh.instances[1].runtime.purge()
            back = await agreed(mesh)
        print(f"a server's memory lost, all agree after {back:.1f} s: {seen}", flush=True)
        return [("server_restart_failed_requests", seen.failed, "requests")]


async def frozen() -> Measured:
    """A mesh process stops for longer than its lease, and goes on."""
    with cluster() as mesh:
        await start(mesh)
        instance = mesh.instances[1]
        async with traffic(others(mesh, instance), 45) as seen:
            await asyncio.sleep(1)
            instance.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(38)
            instance.process.send_signal(signal.SIGCONT)
        print(f"{instance.name} stood still for 38 s: {seen}", flush=True)
        await agreed(mesh)
        return [
            ("frozen_failed_requests", seen.failed, "requests"),
            ("frozen_longest_ms", seen.report["max_ms"], "ms"),
        ]


async def second_copy() -> Measured:
    """A model that is used all the time, a little: on a fake clock, as it takes minutes."""
    return [("second_copy_after_s", copies.second_copy_after_s(), "s")]


SCENARIOS: dict[str, Callable[[], Awaitable[Measured]]] = {
    "rollout": rollout,
    "kill": kill,
    "etcd": etcd,
    "server": server,
    "frozen": frozen,
    "second_copy": second_copy,
}


async def run(names: Iterable[str]) -> None:
    """Runs scenarios in turn, and saves the figures of each as soon as they are there."""
    for name in names:
        print(name, flush=True)
        figures.save("faults", await SCENARIOS[name](), COMMAND)


def main() -> None:
    """Measures and writes bench/results/faults.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), help="scenarios to run"
    )
    asyncio.run(run(parser.parse_args().only))


if __name__ == "__main__":
    main()

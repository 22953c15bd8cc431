"""The whole on a real Kubernetes: the install script, one model, a steady load, on a cluster of its own.

Images are in the cluster before the clock starts. Memory is what is resident in a container's processes, CPU
what its cgroup has used; both of the pod that all requests go to, without the model server's container.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil

from bench import figures
from bench.load import METHOD, digit_request
from local.home import Home

COMMAND = "make bench-cluster"
IMAGES = ("adapter", "controller", "etcd", "mesh", "minio-examples", "mlserver")
NAMESPACE = "modelmesh-serving"
ISVC = "example-sklearn-isvc"
ISVC_MANIFEST = Path("config/example-isvcs/example-sklearn-isvc.yaml")
MODEL_SERVER = "mlserver"
PORT = 8033
RATE = 100.0
WARM_SECONDS = 10.0
LOAD_SECONDS = 60.0
ANSWER_SECONDS = 120.0
GROUPS = Path("/sys/fs/cgroup")


class Native:
    """A native cluster in a folder of its own.

    Args:
        home: the folder; built programs come from the cache of MODELMESH_HOME.
    """

    def __init__(self, home: Path) -> None:
        cache = str(Home.from_environment().cache)
        self._environment = os.environ | {"MODELMESH_HOME": str(home), "MODELMESH_CACHE": cache}

    def __call__(self, *arguments: str | Path) -> str:
        """Runs `hack/native-cluster` and returns what it printed."""
        command = ["hack/native-cluster", *map(str, arguments)]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env=self._environment)
        if done.returncode:
            sys.exit(f"`{' '.join(command)}` ended with status {done.returncode}\n{done.stdout[-3000:]}")
        return done.stdout

    def kubectl(self, *arguments: str) -> str:
        """Runs kubectl in the namespace of the installation."""
        return self("exec", "--", "kubectl", f"--namespace={NAMESPACE}", *arguments)

    def objects(self, *arguments: str) -> list[dict[str, Any]]:
        """Returns the items of `kubectl get`."""
        return list(json.loads(self.kubectl("get", *arguments, "--output=json"))["items"])


@contextmanager
def native_cluster() -> Iterator[Native]:
    """Brings a cluster with all images up, and takes it down."""
    archives = [Home.from_environment().root / "images" / f"{name}.tar" for name in IMAGES]
    if missing := [archive.name for archive in archives if not archive.exists()]:
        sys.exit(f"{', '.join(missing)} missing: run `make images images-servers` first")
    with tempfile.TemporaryDirectory(prefix="modelmesh-bench-") as home:
        native = Native(Path(home))
        try:
            native("up")
            native("load-image", *archives)
            yield native
        finally:
            native("down")


def install_seconds(native: Native) -> float:
    """Times the install script."""
    native("exec", "--", "kubectl", "create", "namespace", NAMESPACE)
    start = time.perf_counter()
    native("exec", "--", "hack/install.sh", "--namespace", NAMESPACE, "--quickstart")
    return time.perf_counter() - start


def first_answer_seconds(native: Native) -> tuple[float, str]:
    """Times from before `kubectl apply` of the first InferenceService to an answer; tells the pod as well."""
    start = time.perf_counter()
    native.kubectl("apply", f"--filename={ISVC_MANIFEST}")
    while time.perf_counter() - start < ANSWER_SECONDS:
        for pod in native.objects("pods", "--selector=modelmesh-service"):
            address = pod["status"].get("podIP")
            if address and answers(native, f"{address}:{PORT}"):
                return time.perf_counter() - start, pod["metadata"]["name"]
        time.sleep(0.2)
    sys.exit(f"no answer within {ANSWER_SECONDS:g} s\n{native.kubectl('describe', 'isvc', ISVC)}")


def answers(native: Native, target: str) -> bool:
    """Says whether a mesh instance answers for the model."""
    said = native("exec", "--", sys.executable, "-m", "bench.on_cluster", "--ask", target)
    return said.strip() == "answered"


async def ask(target: str) -> bool:
    """Sends one request from inside the cluster's network."""
    async with grpc.aio.insecure_channel(target) as channel:
        with suppress(grpc.aio.AioRpcError):
            await channel.unary_unary(METHOD)(digit_request(ISVC), timeout=2)
            return True
    return False


async def send(target: str, seconds: float) -> dict[str, float]:
    """Sends RATE requests a second whatever the answers take; returns counts and latencies."""
    latencies: list[float] = []
    failed = 0
    request = digit_request(ISVC)
    async with grpc.aio.insecure_channel(target) as channel, asyncio.TaskGroup() as tasks:
        call = channel.unary_unary(METHOD)

        async def once() -> None:
            nonlocal failed
            begin = time.perf_counter()
            try:
                await call(request, timeout=10)
                latencies.append(time.perf_counter() - begin)
            except grpc.aio.AioRpcError:
                failed += 1

        start = time.perf_counter()
        for number in range(int(RATE * seconds)):
            await asyncio.sleep(start + number / RATE - time.perf_counter())
            tasks.create_task(once())
    latencies.sort()
    return {
        "answers": len(latencies),
        "failed": failed,
        "p50_ms": 1000 * latencies[len(latencies) // 2],
        "p99_ms": 1000 * latencies[int(len(latencies) * 0.99)],
    }


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container uses: resident memory in bytes, and CPU time since its start in seconds."""

    resident: int
    seconds: float


def usage(container: str) -> Usage:
    """Reads the cgroups of a container by its id, of version 1 or 2."""
    groups = [path for path in GROUPS.glob(f"**/{container}") if path.is_dir()]
    pids = {int(pid) for group in groups for pid in (group / "cgroup.procs").read_text().split()}
    resident = sum(psutil.Process(pid).memory_info().rss for pid in pids)
    for group in groups:
        if (group / "cpuacct.usage").exists():
            return Usage(resident, int((group / "cpuacct.usage").read_text()) / 1e9)
        if (group / "cpu.stat").exists():
            used = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
            if "usage_usec" in used:
                return Usage(resident, int(used["usage_usec"]) / 1e6)
    sys.exit(f"no cgroup of container {container} counts CPU time")


def loaded(native: Native, name: str) -> list[tuple[str, float, str]]:
    """Measures our containers of a pod under RATE requests a second."""
    (pod,) = (each for each in native.objects("pods") if each["metadata"]["name"] == name)
    ours = {
        status["name"]: status["containerID"].removeprefix("containerd://")
        for status in pod["status"]["containerStatuses"]
        if status["name"] != MODEL_SERVER
    }
    generator = [sys.executable, "-m", "bench.on_cluster", "--send", f"{pod['status']['podIP']}:{PORT}"]
    native("exec", "--", *generator, "--seconds", f"{WARM_SECONDS:g}")
    before = {name: usage(container) for name, container in ours.items()}
    start = time.perf_counter()
    said = json.loads(native("exec", "--", *generator, "--seconds", f"{LOAD_SECONDS:g}"))
    seconds = time.perf_counter() - start
    after = {name: usage(container) for name, container in ours.items()}
    cores = {name: (after[name].seconds - before[name].seconds) / seconds for name in ours}
    for container in ours:
        print(f"{container}: {after[container].resident / 2**20:.0f} MiB, {1000 * cores[container]:.0f}m")
    print(said)
    if said["failed"]:
        sys.exit(f"{said['failed']} requests failed: the figures would be of another load")
    return [
        ("pod_rss_mib", sum(each.resident for each in after.values()) / 2**20, "MiB"),
        ("pod_cpu_m", 1000 * sum(cores.values()), "m"),
    ]


def main() -> None:
    """Measures all and records it."""
    with native_cluster() as native:
        measured = [("install_s", install_seconds(native), "s")]
        seconds, pod = first_answer_seconds(native)
        measured += [("first_answer_s", seconds, "s"), *loaded(native, pod)]
    figures.save("cluster", measured, COMMAND)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ask", metavar="TARGET", help="from inside: send one request")
    parser.add_argument("--send", metavar="TARGET", help="from inside: send a steady load")
    parser.add_argument("--seconds", type=float, default=LOAD_SECONDS)
    arguments = parser.parse_args()
    if arguments.ask:
        print("answered" if asyncio.run(ask(arguments.ask)) else "no answer")
    elif arguments.send:
        print(json.dumps(asyncio.run(send(arguments.send, arguments.seconds))))
    else:
        main()

"""Modelmesh in local mode against its own MLServer called directly.

Throughput, latency, memory and the time of the quickstart. Direct calls and calls through the mesh take
turns, and the ratio is the median over the pairs: a machine whose speed drifts does not decide it.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil

from bench import figures
from local import tools
from local.home import Home

COMMAND = "make bench-local"
ROUNDS = 8
NAMESPACE = "modelmesh-serving"
ISVC = "example-sklearn-isvc"
ISVC_MANIFEST = Path("config/example-isvcs/example-sklearn-isvc.yaml")


def modelmesh(*arguments: str) -> str:
    """Runs the launcher and returns what it printed."""
    command = [sys.executable, "-m", "modelmesh", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def kubectl(*arguments: str) -> str:
    """Runs kubectl against the local cluster."""
    home = Home.from_environment()
    command = [tools.ensure(tools.KUBECTL, home.tools), *arguments]
    environment = os.environ | {"KUBECONFIG": str(home.kubeconfig)}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout


def load(target: str, model: str) -> dict[str, float]:
    """Runs the load generator in a process of its own."""
    printed = subprocess.run(
        [sys.executable, "-m", "bench.load", target, model], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return dict(json.loads(printed))


def tree_rss_mib(pid: int) -> float:
    """Resident memory of a process and its children, MiB."""
    process = psutil.Process(pid)
    return sum(part.memory_info().rss for part in (process, *process.children(recursive=True))) / 2**20


def quickstart_seconds() -> float:
    """Times `modelmesh local quickstart` once everything it needs is installed."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "modelmesh", "local", "quickstart"], check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - start


def throughput_and_memory() -> list[tuple[str, float, str]]:
    """Starts a local cluster with the tutorial's model and measures."""
    modelmesh("local", "up", "--detach")
    try:
        kubectl("apply", "-f", str(ISVC_MANIFEST))
        kubectl("wait", "--for=condition=Ready", f"isvc/{ISVC}", "--timeout=120s")
        (pod,) = json.loads(kubectl("get", "pods", "-l", "modelmesh-service", "-o", "json"))["items"]
        ports = json.loads(pod["metadata"]["annotations"]["local.modelmesh/ports"])
        pids = {
            status["name"]: int(status["containerID"].removeprefix("process://"))
            for status in pod["status"]["containerStatuses"]
        }
        direct_target, mesh_target = f"127.0.0.1:{ports['8001']}", "127.0.0.1:8033"
        model = f"{ISVC}__isvc-6b2eb0b8bf"
        load(mesh_target, ISVC)
        pairs = [(load(direct_target, model), load(mesh_target, ISVC)) for _ in range(ROUNDS)]
        for name, results in (("direct", [a for a, _ in pairs]), ("mesh", [b for _, b in pairs])):
            print(
                f"{name:7}"
                + "".join(
                    f"  {key} {statistics.median(result[key] for result in results):.2f}"
                    for key in ("rps", "p50_ms", "p99_ms")
                )
                + f"  errors {sum(result['errors'] for result in results):g}"
            )
        return [
            ("mlserver_ratio", statistics.median(b["rps"] / a["rps"] for a, b in pairs), "ratio"),
            ("added_p50_ms", statistics.median(b["p50_ms"] - a["p50_ms"] for a, b in pairs), "ms"),
            ("added_p99_ms", statistics.median(b["p99_ms"] - a["p99_ms"] for a, b in pairs), "ms"),
            ("mesh_rss_mib", tree_rss_mib(pids["mm"]), "MiB"),
            ("adapter_rss_mib", tree_rss_mib(pids["mlserver-adapter"]), "MiB"),
            ("mlserver_rss_mib", tree_rss_mib(pids["mlserver"]), "MiB"),
        ]
    finally:
        modelmesh("local", "down")


def main() -> None:
    """Measures everything and writes bench/results/local.json."""
    quickstart_seconds()
    warm = min(quickstart_seconds() for _ in range(2))
    figures.save("local", [*throughput_and_memory(), ("quickstart_warm_s", warm, "s")], COMMAND)


if __name__ == "__main__":
    main()

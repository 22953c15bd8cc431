"""The byte path against no proxy at all and against Envoy, side by side in one run.

The model server is the Rust echo runtime; load comes from h2load over 4 connections with 8 streams each, and
in open loop from `echo-load`. A run counts only if the server, called directly, answers 45,000 requests/s on
2 cores; every figure is the median over the rounds that count.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import psutil

from api.proto import kfs_inference_v2_pb2 as v2
from api.proto import kfs_inference_v2_pb2_grpc as v2_grpc
from api.proto import model_runtime_pb2, model_runtime_pb2_grpc
from bench import echo, figures
from tests.store.etcd_server import free_port

COMMAND = "make bench-dataplane"
CRATE = Path(__file__).parents[1] / "dataplane"
ALIAS, MODEL = "model-7", "model-7__isvc-0123456789"
INFER = "/inference.GRPCInferenceService/ModelInfer"
DIRECT_RPS_THAT_COUNTS = 45_000
KIB = 1024
MIB = 1 << 20
WINDOWS = ("-w24", "-W28")
RATE = 500
SLOW_MS, SLOW_IN_FLIGHT = 20, 256
Measured = list[tuple[str, float, str]]


def framed(model: str, size: int) -> bytes:
    """A gRPC message of `size` bytes: an inference request for a model."""
    request = v2.ModelInferRequest(model_name=model)
    request.inputs.add(name="in", datatype="UINT8", shape=[size])
    request.raw_input_contents.append(b"")
    request.raw_input_contents[0] = b"x" * (size - request.ByteSize() - 2)
    message = request.SerializeToString()
    return bytes([0]) + len(message).to_bytes(4, "big") + message


class Instance:
    """A process with the byte path; `bench.dataplane_instance`."""

    def __init__(self, *options: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.dataplane_instance", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout  # noqa: S101 - it is a pipe
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the instance ended with {self._process.wait()}")
        started = json.loads(line)
        self.target: str = started["grpc"]
        self.peer: str = started["peer"]
        self._before: int = started["rss_before"]
        self._system = psutil.Process(self._process.pid)

    def cpu_seconds(self) -> float:
        """What the process has used of the processors since its start."""
        times = self._system.cpu_times()
        return float(times.user + times.system)

    def rss_mib(self) -> float:
        """Resident memory beyond what the Python process had before the byte path."""
        return float(self._system.memory_info().rss - self._before) / MIB

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def envoy(upstream: str) -> Iterator[str]:
    """Envoy with two workers before a server; yields where it listens."""
    port = free_port()
    windows = {"initial_stream_window_size": MIB, "initial_connection_window_size": 16 * MIB}
    type_of = "type.googleapis.com/envoy.extensions"

    def address(host: str, number: str | int) -> dict[str, object]:
        return {"socket_address": {"address": host, "port_value": int(number)}}

    route = {"match": {"prefix": "/"}, "route": {"cluster": "server", "timeout": "0s"}}
    manager = {
        "@type": f"{type_of}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "codec_type": "HTTP2",
        "http2_protocol_options": windows,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{type_of}.filters.http.router.v3.Router"},
            }
        ],
    }
    cluster = {
        "name": "server",
        "type": "STATIC",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{type_of}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": windows},
            }
        },
        "load_assignment": {
            "cluster_name": "server",
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": address(*upstream.rsplit(":", 1))}}]},
            ],
        },
    }
    manager_filter = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    listener = {"address": address("127.0.0.1", port), "filter_chains": [{"filters": [manager_filter]}]}
    config = {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
    command = [program("envoy"), "--config-yaml", json.dumps(config), "--concurrency", "2"]
    process = subprocess.Popen([*command, "--log-level", "error", "--use-dynamic-base-id"])
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def program(name: str) -> str:
    """Where a program of the benchmark is: in the folder of tools, else on PATH."""
    tools = Path(os.environ.get("MODELMESH_HOME", ".modelmesh")) / "cache" / "tools" / "bench"
    if found := shutil.which(name, path=f"{tools}{os.pathsep}{os.environ['PATH']}"):
        return found
    advice = {"h2load": "apt-get install nghttp2-client", "envoy": "make bench-dataplane installs it"}
    raise SystemExit(f"{name} is missing: {advice[name]}")


def load_model(target: str) -> None:
    """Loads the model of the benchmark into the echo runtime."""
    with grpc.insecure_channel(target) as channel:
        stub = model_runtime_pb2_grpc.ModelRuntimeStub(channel)
        stub.loadModel(model_runtime_pb2.LoadModelRequest(modelId=MODEL, modelPath="any"))


def check(target: str, model: str) -> None:
    """Waits until a target answers; a benchmark of errors would be quick."""
    with grpc.insecure_channel(target) as channel:
        stub = v2_grpc.GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(v2.ModelInferRequest(model_name=model), timeout=20, wait_for_ready=True)
    if answer.model_name not in {model, MODEL}:
        raise RuntimeError(f"{target} answered for {answer.model_name!r}")


def h2load(target: str, body: Path, seconds: int, streams: int = 8) -> float:
    """Requests a second over 4 connections, after a second of warm-up."""
    command = [program("h2load"), "-c4", f"-m{streams}", *WINDOWS, "-D", f"{seconds}", "--warm-up-time=1"]
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    printed = subprocess.run(
        [*command, *headers, "-d", str(body), f"http://{target}{INFER}"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    found = re.search(r"requests: (\d+) total.* (\d+) succeeded, (\d+) failed, (\d+) errored", printed)
    rate = re.search(r"finished in [^,]*, ([\d.]+) req/s", printed)
    if not found or not rate or int(found[3]) or int(found[4]) or not int(found[2]):
        raise RuntimeError(f"h2load of {target} failed:\n{printed}")
    return float(rate[1])


def latencies(target: str, model: str, seconds: int) -> tuple[float, float]:
    """Milliseconds at p50 and p99, at 500 requests/s in open loop."""
    options = ("--payload=1000", f"--rate={RATE}", f"--seconds={seconds}", "--connections=4")
    report = echo.load(f"--target={target}", f"--model={model}", *options)
    if report["ok"] != report["requests"]:
        raise RuntimeError(f"{target}: {report['errors']} {report['error_texts']}")
    return report["p50_ms"], report["p99_ms"]


class Rounds:
    """Samples of each figure over the rounds that count."""

    def __init__(self) -> None:
        self.samples: dict[str, list[float]] = defaultdict(list)

    def add(self, **values: float) -> None:
        """Takes one value of each named figure."""
        for name, value in values.items():
            self.samples[name].append(value)

    def median(self, name: str) -> float:
        """The median of a figure's samples."""
        return statistics.median(self.samples[name])

    def measured(self, units: dict[str, str]) -> Measured:
        """The medians of those figures that have samples."""
        return [(name, self.median(name), unit) for name, unit in units.items() if self.samples[name]]


class Bench:
    """The servers of one run."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack, *, seconds: int) -> None:
        self.seconds = seconds
        self.runtime = stack.enter_context(echo.EchoRuntime())
        load_model(self.runtime.target)
        self.here = Instance(f"--runtime={self.runtime.target}")
        stack.callback(self.here.stop)
        self.front = Instance(f"--peer={self.here.peer}")
        stack.callback(self.front.stop)
        self.envoy = stack.enter_context(envoy(self.runtime.target))
        self.bodies: dict[tuple[str, int], Path] = {}
        for model in (ALIAS, MODEL):
            for size in (KIB, 100 * KIB):
                self.bodies[model, size] = folder / f"{model}-{size}"
                self.bodies[model, size].write_bytes(framed(model, size))
        for target, model in ((self.runtime.target, MODEL), (self.envoy, MODEL)):
            check(target, model)
        for instance in (self.here, self.front):
            check(instance.target, ALIAS)

    def throughput(self, rounds: Rounds) -> None:
        """One round of throughputs; direct is measured before and after."""

        def rate(target: str, model: str, size: int) -> float:
            return h2load(target, self.bodies[model, size], self.seconds)

        for size, name in ((KIB, "1k"), (100 * KIB, "100k")):
            before = rate(self.runtime.target, MODEL, size)
            proxy = rate(self.envoy, MODEL, size)
            infers = self.runtime.stats()["infers"]
            used = self.here.cpu_seconds()
            hit = rate(self.here.target, ALIAS, size)
            served = self.runtime.stats()["infers"] - infers
            cpu_us = 1e6 * (self.here.cpu_seconds() - used) / served
            forward = rate(self.front.target, ALIAS, size)
            direct = (before + rate(self.runtime.target, MODEL, size)) / 2
            print(
                f"{name}: direct {direct:.0f}/s, Envoy {proxy / direct:.3f}, hit {hit / direct:.3f} "
                f"({cpu_us:.1f} µs CPU), forward {forward / direct:.3f}",
                flush=True,
            )
            if size == KIB and direct < DIRECT_RPS_THAT_COUNTS:
                print(f"the round does not count: direct is below {DIRECT_RPS_THAT_COUNTS}/s")
                return
            ratios = {"hit": hit / direct, "forward": forward / direct}
            rounds.add(**{f"{path}_{name}_ratio": ratio for path, ratio in ratios.items()})
            rounds.add(**{f"hit_{name}_vs_envoy": hit / proxy})
            if size == KIB:
                rounds.add(hit_cpu_us=cpu_us)
        rounds.add(rust_rss_mib=self.here.rss_mib())

    def latency(self, rounds: Rounds) -> None:
        """One round of open loops, each way in turn."""
        direct = latencies(self.runtime.target, MODEL, self.seconds)
        hit = latencies(self.here.target, ALIAS, self.seconds)
        forward = latencies(self.front.target, ALIAS, self.seconds)
        print(f"p50/p99 ms: direct {direct}, hit {hit}, forward {forward}", flush=True)
        rounds.add(
            added_p50_ms=hit[0] - direct[0],
            added_p99_ms=hit[1] - direct[1],
            forward_added_p50_ms=forward[0] - direct[0],
        )


def slow_model(rounds: Rounds, folder: Path, seconds: int) -> None:
    """One round with a server that takes 20 ms for each of 256 requests in flight."""
    body = {model: folder / f"slow-{model}" for model in (ALIAS, MODEL)}
    for model, path in body.items():
        path.write_bytes(framed(model, KIB))
    with contextlib.ExitStack() as stack:
        runtime = stack.enter_context(echo.EchoRuntime(f"--infer-delay-ms={SLOW_MS}"))
        load_model(runtime.target)
        here = Instance(f"--runtime={runtime.target}")
        stack.callback(here.stop)
        check(here.target, ALIAS)
        direct = h2load(runtime.target, body[MODEL], seconds, SLOW_IN_FLIGHT // 4)
        hit = h2load(here.target, body[ALIAS], seconds, SLOW_IN_FLIGHT // 4)
    print(f"slow model: direct {direct:.0f}/s, hit {hit / direct:.3f}", flush=True)
    rounds.add(slow_model_ratio=hit / direct)


def lookup() -> Measured:
    """Nanoseconds of lookup and splice, by criterion."""
    command = ["cargo", "bench", "--quiet", "--locked", "--bench", "lookup"]
    subprocess.run([*command, "--manifest-path", str(CRATE / "Cargo.toml")], check=True)
    measured = []
    for count in ("20k", "200k"):
        estimates = CRATE / "target" / "criterion" / f"lookup_splice_{count}" / "new" / "estimates.json"
        median = json.loads(estimates.read_text())["median"]["point_estimate"]
        measured.append((f"lookup_splice_{count}_ns", float(median), "ns"))
    return measured


THROUGHPUT = {
    "hit_1k_ratio": "ratio",
    "hit_1k_vs_envoy": "ratio",
    "hit_100k_ratio": "ratio",
    "hit_100k_vs_envoy": "ratio",
    "hit_cpu_us": "µs",
    "forward_1k_ratio": "ratio",
    "forward_100k_ratio": "ratio",
    "rust_rss_mib": "MiB",
}
LATENCY = {"added_p50_ms": "ms", "added_p99_ms": "ms", "forward_added_p50_ms": "ms"}
SUITES = ("throughput", "latency", "slow", "lookup")


def run(names: list[str], count: int, seconds: int) -> None:
    """Measures the suites and saves what counts."""
    rounds = Rounds()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        measures: list[Callable[[Rounds], None]] = []
        if {"throughput", "latency"} & set(names):
            bench = Bench(folder, stack, seconds=seconds)
            measures += [bench.throughput] if "throughput" in names else []
            measures += [bench.latency] if "latency" in names else []
        if "slow" in names:
            measures.append(lambda rounds: slow_model(rounds, folder, seconds))
        for _ in range(count):
            for measure in measures:
                measure(rounds)
                time.sleep(0.2)
    measured = rounds.measured({**THROUGHPUT, **LATENCY, "slow_model_ratio": "ratio"})
    figures.save("dataplane", measured + (lookup() if "lookup" in names else []), COMMAND)


def main() -> None:
    """Measures and writes bench/results/dataplane.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SUITES, default=list(SUITES), help="suites to run")
    parser.add_argument("--rounds", type=int, default=5, help="of which the median counts")
    parser.add_argument("--seconds", type=int, default=3, help="of each load")
    arguments = parser.parse_args()
    run(arguments.only, arguments.rounds, arguments.seconds)


if __name__ == "__main__":
    main()

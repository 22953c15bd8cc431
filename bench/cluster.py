"""A mesh of real processes to measure: etcd, and for each instance a mesh process and an echo runtime."""

import asyncio
import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import grpc
import psutil

from api.proto import model_mesh_pb2, model_mesh_pb2_grpc
from bench import echo
from bench.echo import EchoRuntime
from tests.store.etcd_server import EtcdServer, free_port

ROOT = Path(__file__).parents[1]
MESH = [sys.executable, "-m", "modelmesh", "mesh"]
START_SECONDS = 120
STOP_SECONDS = 40
INFER = "inference.GRPCInferenceService/ModelInfer"
BY_MODEL_ID = {"rpcConfigs": {INFER: {"idExtractionPath": [1], "vModelId": False}}, "allowOtherRpcs": True}
"""Requests name models, not vmodels."""
MIB = 1 << 20
REGISTER_IN_FLIGHT = 128
CHANNEL_OPTIONS = (("grpc.enable_http_proxy", 0),)


class Instance:
    """One mesh process with the echo runtime beside it."""

    def __init__(
        self,
        name: str,
        folder: Path,
        etcd: EtcdServer,
        runtime: EchoRuntime,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.name = name
        self.runtime = runtime
        self._folder = folder
        self._ports = {name: free_port() for name in ("grpc", "peer", "probe")}
        self._environment = os.environ | {
            "MM_SERVICE_NAME": "modelmesh-serving",
            "WKUBE_POD_NAME": f"modelmesh-serving-echo-{name}",
            "WKUBE_POD_IPADDR": "127.0.0.1",
            "MM_BIND_ADDRESS": "127.0.0.1",
            "KV_STORE": f"etcd:{etcd.endpoint}",
            "MM_SVC_GRPC_PORT": str(self._ports["grpc"]),
            "MM_SVC_REST_PORT": "0",
            "MM_PEER_PORT": str(self._ports["peer"]),
            "MM_PROBE_PORT": str(self._ports["probe"]),
            "MM_PRESTOP_WAIT_PORT": "0",
            "INTERNAL_GRPC_PORT": runtime.target.rpartition(":")[2],
            "MM_DATAPLANE_CONFIG": json.dumps(BY_MODEL_ID),
            "SHUTDOWN_TIMEOUT_MS": "4000",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> str:
        """Where clients call it: host:port."""
        return f"127.0.0.1:{self._ports['grpc']}"

    @property
    def process(self) -> psutil.Process:
        """The mesh process."""
        if self._process is None:
            raise RuntimeError(f"instance {self.name} was not started")
        return psutil.Process(self._process.pid)

    @property
    def log(self) -> Path:
        """What the mesh process wrote to standard error."""
        return self._folder / f"{self.name}.log"

    def rss_mib(self) -> float:
        """Resident memory of the mesh process."""
        return float(self.process.memory_info().rss) / MIB

    def cpu_seconds(self) -> float:
        """What the mesh process has used of the processors since its start."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def start(self) -> float:
        """Starts the mesh process and waits until it is ready; returns how long that took, in seconds.

        Raises RuntimeError where it ends or does not become ready.
        """
        begin = time.perf_counter()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(MESH, cwd=ROOT, env=self._environment, stderr=log)
        while time.perf_counter() < begin + START_SECONDS:
            if self._process.poll() is not None:
                raise RuntimeError(f"the mesh process ended: {self.log.read_text()[-2000:]}")
            if self._ready():
                return time.perf_counter() - begin
            time.sleep(0.02)
        raise RuntimeError(f"instance {self.name} is not ready after {START_SECONDS} s")

    def kill(self) -> None:
        """Ends the mesh process at once, as a machine that fails does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Ends the mesh process; it leaves the mesh in order where it can."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._ports["probe"], timeout=2)
        try:
            connection.request("GET", "/ready")
            return connection.getresponse().status == http.client.OK
        except OSError:
            return False
        finally:
            connection.close()


class Cluster:
    """An etcd with its usual settings and some instances; use `cluster` to have it stopped."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelmesh-bench-")))
        self.etcd = EtcdServer(self._folder, "--unsafe-no-fsync=false")
        stack.callback(self.etcd.stop)
        self.etcd.start()
        self.instances: list[Instance] = []

    def add(self, *options: str, environment: Mapping[str, str] = MappingProxyType({})) -> Instance:
        """Starts an echo runtime with these options, and a mesh process when it is there."""
        instance = self.place(*options, environment=environment)
        instance.start()
        return instance

    def place(self, *options: str, environment: Mapping[str, str] = MappingProxyType({})) -> Instance:
        """Starts an echo runtime, and leaves the start of its mesh process to the caller."""
        runtime = self._stack.enter_context(EchoRuntime(*options))
        name = f"5f6d7-{'abcdefgh'[len(self.instances)] * 5}"
        instance = Instance(name, self._folder, self.etcd, runtime, environment)
        self._stack.callback(instance.stop)
        self.instances.append(instance)
        return instance

    def file(self, name: str) -> Path:
        """A file that is gone with the cluster."""
        return self._folder / name


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """An etcd for the time of the block, and no instance yet."""
    with contextlib.ExitStack() as stack:
        yield Cluster(stack)


def register(
    instances: Sequence[Instance],
    count: int,
    *,
    path: str = f"SIZE_{MIB}_0_0",
    name: str = "model",
    first: int = 0,
) -> float:
    """Registers models (`<name>-<number>`), without loading them; returns how many a second."""
    report = echo.load(
        *(f"--target={instance.target}" for instance in instances),
        f"--register={path}",
        f"--model={name}-{{}}",
        f"--models={count}",
        f"--first={first}",
        f"--in-flight={REGISTER_IN_FLIGHT}",
        "--deadline-ms=60000",
    )
    if report["ok"] != count:
        raise RuntimeError(
            f"{count - report['ok']} of {count} models not registered: {report['error_texts']}"
        )
    return float(report["rps"])


class Client:
    """Calls of `mmesh.ModelMesh`, taking turns between instances."""

    def __init__(self, instances: Sequence[Instance]) -> None:
        self._channels = [
            grpc.aio.insecure_channel(instance.target, options=CHANNEL_OPTIONS) for instance in instances
        ]
        self._stubs: list[Any] = [model_mesh_pb2_grpc.ModelMeshStub(channel) for channel in self._channels]

    async def load(self, model_ids: Sequence[str], *, in_flight: int = 32) -> None:
        """Has models loaded, and waits for it."""
        pending = iter(model_ids)

        async def worker(number: int) -> None:
            stub = self._stubs[number % len(self._stubs)]
            for model_id in pending:
                await stub.ensureLoaded(
                    model_mesh_pb2.EnsureLoadedRequest(modelId=model_id, sync=True), timeout=60
                )

        await asyncio.gather(*(worker(number) for number in range(in_flight)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels:
            await channel.close()

"""A control plane of real processes to measure: etcd and kube-apiserver, and the controller beside them.

The API server keeps an audit log of what the controller asks it to write. That is what writes are counted by:
it has also those that change nothing, of which no watch and no resourceVersion tells.
"""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from prometheus_client.parser import text_string_to_metric_families

from api.core import CONFIG_MAP, NAMESPACE, SECRET
from bench.cluster import MIB, ROOT, Instance
from controller.config import CONFIG_MAP as CONFIGURATION
from controller.config import ENTRY
from controller.runtime import HttpClient
from controller.runtime.testing import KubeApiServer, install_definitions
from hack import kube_apiserver
from tests.store.etcd_server import EtcdServer, free_port

OWN_NAMESPACE = "modelmesh-serving"
USER = "modelmesh-controller"
CONTROLLER = [sys.executable, "-m", "modelmesh", "controller"]
START_SECONDS = 60
STOP_SECONDS = 20
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "users": [USER], "verbs": ["create", "update", "patch", "delete"]},
        {"level": "None"},
    ],
}
LOCKS = "leases"
"""Resource that leader election writes by the clock, whatever else happens."""


@dataclass(frozen=True, slots=True)
class Write:
    """One request of the controller to write, whether or not it was granted or changed anything."""

    verb: str
    resource: str
    """Plural, with the subresource after a slash."""
    name: str


def writes(log: Iterable[str]) -> list[Write]:
    """Reads the writes of an audit log's lines; those of locks are left out."""
    found = []
    for line in log:
        event = json.loads(line)
        if event["stage"] != "ResponseComplete":
            continue
        target: dict[str, str] = event["objectRef"]
        resource = target["resource"]
        if subresource := target.get("subresource"):
            resource += f"/{subresource}"
        if resource != LOCKS:
            found.append(Write(event["verb"], resource, target.get("name", "")))
    return found


class ControlPlane:
    """A kube-apiserver with the project's definitions.

    Use `control_plane` to have it stopped.
    """

    def __init__(self, folder: Path, server: KubeApiServer, client: HttpClient, audit: Path) -> None:
        self.client = client
        """Of the administrator: its writes are not counted."""
        self._folder = folder
        self._server = server
        self._audit = audit

    def writes(self) -> list[Write]:
        """What the controller has asked to write so far, in order."""
        with self._audit.open() as log:
            return writes(log)

    async def prepare(self, mesh: Instance, store: EtcdServer) -> None:
        """Makes what an installation has before the controller starts; there is one mesh instance.

        No pod runs here, so the address of the mesh is a setting (`modelMeshEndpoint`); a loopback address in
        an Endpoints object would be refused.
        """
        await self.client.create(NAMESPACE, {"metadata": {"name": OWN_NAMESPACE}})
        secret = {"etcd_connection": json.dumps({"endpoints": f"http://{store.endpoint}"})}
        configuration = {"modelMeshEndpoint": mesh.target, "podsPerRuntime": 1}
        await self.client.create(SECRET, named("model-serving-etcd") | {"stringData": secret})
        data = {ENTRY: json.dumps(configuration)}
        await self.client.create(CONFIG_MAP, named(CONFIGURATION) | {"data": data})

    def controller(self) -> "Controller":
        """A controller of this control plane, which is not started yet."""
        return Controller(self._folder, self._kubeconfig())

    async def client_as_controller(self) -> HttpClient:
        """A client whose writes are counted as the controller's; the caller closes it."""
        return await self._server.client(self._kubeconfig())

    def _kubeconfig(self) -> Path:
        return self._server.kubeconfig_for(USER, "system:masters")


def named(name: str) -> dict[str, Any]:
    """The metadata of an object in the controller's namespace."""
    return {"metadata": {"name": name, "namespace": OWN_NAMESPACE}}


class Controller:
    """One controller process, in cluster scope, with the flags and settings that it has by default."""

    def __init__(self, folder: Path, kubeconfig: Path) -> None:
        self._log = folder / "controller.log"
        self._ports = {"metrics": free_port(), "health": free_port()}
        self._environment = os.environ | {
            "KUBECONFIG": str(kubeconfig),
            "NAMESPACE": OWN_NAMESPACE,
            "CONFIG_DEFAULTS_FILE": str(folder / "none"),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> psutil.Process:
        """The process.

        Raises:
            RuntimeError: it was not started, or has ended; with the end of its log.
        """
        if self._process is None:
            raise RuntimeError("the controller was not started")
        if self._process.poll() is not None:
            raise RuntimeError(f"the controller ended: {self._log.read_text()[-2000:]}")
        return psutil.Process(self._process.pid)

    def peak_rss_mib(self) -> float:
        """The most that has been resident since the start (Linux: VmHWM)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / MIB

    def rss_mib(self) -> float:
        """What is resident now."""
        return float(self.process.memory_info().rss) / MIB

    def cpu_seconds(self) -> float:
        """What it has used of the processors since its start."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def start(self) -> None:
        """Starts it and returns when it is ready; RuntimeError where it ends or is not ready in a minute."""
        flags = [
            f"--metrics-addr=127.0.0.1:{self._ports['metrics']}",
            f"--health-probe-bind-address=127.0.0.1:{self._ports['health']}",
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*CONTROLLER, *flags], cwd=ROOT, env=self._environment, stdout=log, stderr=log
            )
        deadline = time.perf_counter() + START_SECONDS
        while self.process.is_running() and self._get("health", "/readyz") is None:
            if time.perf_counter() > deadline:
                raise RuntimeError(f"the controller is not ready after {START_SECONDS} s")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends it in order where it can; does nothing where it does not run."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name that have these labels."""
        text = self._get("metrics", "/metrics")
        if text is None:
            raise RuntimeError("the controller serves no metrics")
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def _get(self, port: str, path: str) -> str | None:
        connection = http.client.HTTPConnection("127.0.0.1", self._ports[port], timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read().decode()
        except OSError:
            return None
        finally:
            connection.close()
        return body if response.status == http.client.OK else None


@contextlib.asynccontextmanager
async def control_plane(folder: Path) -> AsyncIterator[ControlPlane]:
    """A real API server for the time of the block; its data and logs are below `folder`."""
    policy, audit = folder / "audit-policy.yaml", folder / "audit.log"
    policy.write_text(yaml.safe_dump(AUDIT_POLICY))
    audit.touch()
    flags = (f"--audit-policy-file={policy}", f"--audit-log-path={audit}")
    definitions = [
        yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
        for path in sorted((ROOT / "config" / "crd").glob("*.yaml"))
    ]
    async with (
        KubeApiServer(folder / "kube", kube_apiserver.binaries(), flags) as server,
        await server.client() as client,
    ):
        await install_definitions(client, definitions)
        yield ControlPlane(folder, server, client, audit)

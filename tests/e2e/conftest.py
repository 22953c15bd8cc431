"""A real cluster of local mode for the whole session: etcd, S3, controller, mesh, adapter, MLServer, kubectl.

It has a home and ports of its own, so it does not meet one that runs on this machine, and shares the cache
of tools and environments with `make quickstart`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import httpx
import obstore
import psutil
import pytest
from obstore.store import S3Store

from api.proto import kfs_inference_v2_pb2 as v2
from api.proto import kfs_inference_v2_pb2_grpc as v2_grpc
from local import tools
from local.home import Home
from local.manifests import ACCESS_KEY, BUCKET, SECRET_KEY
from local.ports import PortAllocator
from local.quickstart import EIGHT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from api.meta import JSON

ROOT = Path(__file__).parent.parent.parent
READY_SECONDS = 60.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder, and give it the time that real servers take."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(240))


def until(condition: Callable[[], object], what: str, seconds: float = READY_SECONDS) -> None:
    """Wait until `condition` is truthy; fail with `what` when that takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)


def processes_of(home: Path) -> list[str]:
    """Return the command lines of all processes that belong to a home: by argument, variable or folder."""
    found = []
    for process in psutil.process_iter():
        try:
            marks = [*process.cmdline(), process.cwd(), process.environ().get("MODELMESH_HOME", "")]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(home) in mark for mark in marks):
            found.append(f"{process.pid}: {' '.join(marks[:4])}")
    return found


def run(*command: str | Path, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command and return its output; standard error goes to standard output."""
    done = subprocess.run(  # noqa: PLW1510 -- checked with the output below
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        **options,
    )
    assert not check or done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done


@dataclass(frozen=True)
class Machine:
    """A home and ports, with the command line that uses them."""

    home: Home
    grpc_port: int
    rest_port: int
    api_port: int

    @property
    def environment(self) -> dict[str, str]:
        """The variables that choose home and ports."""
        return {
            **os.environ,
            "KUBECONFIG": str(self.home.kubeconfig),
            "MODELMESH_CACHE": str(self.home.cache),
            "MODELMESH_HOME": str(self.home.root),
            "MODELMESH_LOCAL_API_PORT": str(self.api_port),
            "MODELMESH_LOCAL_GRPC_PORT": str(self.grpc_port),
            "MODELMESH_LOCAL_REST_PORT": str(self.rest_port),
        }

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of `modelmesh local ARGUMENTS`."""
        return [sys.executable, "-m", "modelmesh", "local", *arguments]

    def local(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `modelmesh local ARGUMENTS`."""
        return run(*self.command(*arguments), check=check, env=self.environment)

    def kubectl(
        self, *arguments: str, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl against the cluster."""
        program = tools.ensure(tools.KUBECTL, self.home.tools)
        return run(program, *arguments, check=check, input=stdin, env=self.environment)

    def get(self, *arguments: str) -> JSON:
        """Return what `kubectl get ARGUMENTS -o json` prints."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)

    def isvc(self, name: str) -> JSON:
        """Return the status of an InferenceService, empty while it has none."""
        return self.get("isvc", name).get("status", {})

    def condition(self, name: str, kind: str = "Ready") -> str:
        """Return the status of a condition of an InferenceService."""
        conditions = self.isvc(name).get("conditions", [])
        return next((item["status"] for item in conditions if item["type"] == kind), "")

    def apply(self, *manifests: str) -> str:
        """Apply manifests as text; return what kubectl printed."""
        return self.kubectl("apply", "-f", "-", stdin="\n---\n".join(manifests)).stdout

    def wait_ready(self, name: str) -> None:
        """Wait until an InferenceService is ready and its newest form is the active one."""

        def ready() -> bool:
            status = self.isvc(name)
            states = status.get("modelStatus", {})
            return self.condition(name) == "True" and states.get("transitionStatus") == "UpToDate"

        until(ready, f"{name} to be ready")

    def wait_failed(self, name: str) -> JSON:
        """Wait until an InferenceService says that its model failed to load; return `lastFailureInfo`."""

        def failed() -> JSON | None:
            status = self.isvc(name).get("modelStatus", {})
            states = status.get("states", {})
            return status.get("lastFailureInfo") if "FailedToLoad" in states.values() else None

        until(failed, f"{name} to fail")
        found = failed()
        assert found is not None
        return found

    def container_pid(self, container: str) -> int:
        """Return the process of a container of a runtime pod, 0 while none runs."""
        pods = self.get("pods", "-l", "modelmesh-service=modelmesh-serving")["items"]
        for pod in pods:
            for status in pod.get("status", {}).get("containerStatuses", []):
                if status["name"] == container and "running" in status["state"]:
                    return int(status["containerID"].removeprefix("process://"))
        return 0

    def server_port(self) -> int:
        """Return the port of MLServer's own inference service."""
        (pod,) = self.get("pods", "-l", "modelmesh-service=modelmesh-serving")["items"]
        return int(json.loads(pod["metadata"]["annotations"]["local.modelmesh/ports"])["8001"])

    def infer(
        self, model: str, pixels: list[float] | None = None, timeout: float = 60, port: int = 0
    ) -> v2.ModelInferResponse:
        """Ask a model by gRPC, through the mesh or at another port."""
        digit = EIGHT if pixels is None else pixels
        request = v2.ModelInferRequest(model_name=model)
        tensor = request.inputs.add(name="predict", shape=[1, len(digit)], datatype="FP32")
        tensor.contents.fp32_contents.extend(digit)
        options = [("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(f"127.0.0.1:{port or self.grpc_port}", options) as channel:
            return v2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=timeout)

    def infer_rest(self, model: str, pixels: list[float] | None = None) -> httpx.Response:
        """Ask a model by REST."""
        digit = EIGHT if pixels is None else pixels
        tensor = {"name": "predict", "shape": [1, len(digit)], "datatype": "FP32", "data": digit}
        url = f"http://127.0.0.1:{self.rest_port}/v2/models/{model}/infer"
        return httpx.post(url, json={"inputs": [tensor]}, timeout=60)

    def put(self, key: str, content: bytes) -> None:
        """Put an object into the sample bucket."""
        state = json.loads((self.home.root / "state.json").read_text())
        store = S3Store(
            BUCKET,
            endpoint=state["s3_endpoint"],
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            region="us-south",
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )
        obstore.put(store, key, content)


def isvc(
    name: str, *, path: str = "", uri: str = "", key: str = "localMinIO", model_format: str = "sklearn"
) -> str:
    """Return the manifest of an InferenceService."""
    annotations = {"serving.kserve.io/deploymentMode": "ModelMesh"}
    model: JSON = {"modelFormat": {"name": model_format}}
    if uri:
        annotations["serving.kserve.io/secretKey"] = key
        model["storageUri"] = uri
    else:
        model["storage"] = {"key": key, "path": path}
    manifest = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"predictor": {"model": model}},
    }
    return json.dumps(manifest)


def machine_in(folder: Path) -> Machine:
    """Return a machine with free ports and the shared cache."""
    default = Path(os.environ.get("MODELMESH_HOME") or ROOT / ".modelmesh") / "cache"
    cache = Path(os.environ.get("MODELMESH_CACHE") or default)
    ports = PortAllocator()
    return Machine(Home(folder, cache), ports.allocate(), ports.allocate(), ports.allocate())


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine without a cluster; one that a test started on it is stopped."""
    found = machine_in(tmp_path / "home")
    yield found
    found.local("down")
    assert processes_of(found.home.root) == []


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A running cluster that the tests of a session share."""
    found = machine_in(tmp_path_factory.mktemp("cluster") / "home")
    found.local("up", "--detach")
    yield found
    found.local("down")
    assert processes_of(found.home.root) == []


@pytest.fixture(scope="session")
def digits(cluster: Machine) -> Machine:
    """The shared cluster with the tutorial's model, called `digits`, ready."""
    cluster.apply(isvc("digits", path="sklearn/mnist-svm.joblib"))
    cluster.wait_ready("digits")
    return cluster


@pytest.fixture
def name(request: pytest.FixtureRequest, cluster: Machine) -> Iterator[str]:
    """A name for an InferenceService, which is deleted after the test."""
    chosen = request.node.originalname.replace("_", "-")[:40].strip("-")
    yield chosen
    cluster.kubectl("delete", "isvc", chosen, "--ignore-not-found")

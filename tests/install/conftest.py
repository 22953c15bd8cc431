"""The install scripts with a real kubectl on a real kube-apiserver.

No controller-manager and no kubelet is there: a stand-in reports Deployments as rolled out. The whole, with
pods, is tested by the functional verification on a cluster.
"""

import asyncio
import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.core import DEPLOYMENT
from controller.runtime.errors import ClientError
from controller.runtime.testing import KubeApiServer
from hack import kube_apiserver
from local import tools
from local.home import Home

ROOT = Path(__file__).parents[2]


class Rollouts:
    """Stands in for the Deployment controller: every Deployment is rolled out at once, while it runs."""

    def __init__(self, cluster: KubeApiServer) -> None:
        self._cluster = cluster
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._work()))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _work(self) -> None:
        async with await self._cluster.client() as client:
            while not self._stop.is_set():
                for deployment in (await client.list(DEPLOYMENT)).items:
                    with contextlib.suppress(ClientError):  # deleted meanwhile
                        await self._roll_out(client, deployment)
                await asyncio.sleep(0.2)

    async def _roll_out(self, client: Any, deployment: dict[str, Any]) -> None:
        metadata, wanted = deployment["metadata"], deployment["spec"]["replicas"]
        if deployment.get("status", {}).get("observedGeneration") == metadata["generation"]:
            return
        counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
        status = dict.fromkeys(counts, wanted) | {"observedGeneration": metadata["generation"]}
        await client.patch(
            DEPLOYMENT, metadata["name"], metadata["namespace"], {"status": status}, subresource="status"
        )


class Machine:
    """Runs commands with the kubeconfig of one test."""

    def __init__(self, kubeconfig: Path, path: str) -> None:
        self.environment = os.environ | {"KUBECONFIG": str(kubeconfig), "PATH": path}
        self.environment.pop("NAMESPACE_SCOPE_MODE", None)

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=110,
        )

    def must(self, *command: str) -> str:
        """Returns what a command prints, which has to succeed."""
        done = self.run(*command)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApiServer]:
    """A server with nothing of ours."""
    server = KubeApiServer(tmp_path_factory.mktemp("install"), kube_apiserver.binaries())
    try:
        asyncio.run(server.start())
        yield server
    finally:
        asyncio.run(server.stop())


@pytest.fixture
def rollouts(cluster: KubeApiServer) -> Callable[[], Rollouts]:
    return lambda: Rollouts(cluster)


@pytest.fixture
def machine(cluster: KubeApiServer, tmp_path: Path) -> Machine:
    kubectl = tools.ensure(tools.KUBECTL, Home.from_environment().tools)
    kubeconfig = tmp_path / "kubeconfig"
    shutil.copy(cluster.kubeconfig, kubeconfig)
    return Machine(kubeconfig, f"{kubectl.parent}:{os.environ['PATH']}")

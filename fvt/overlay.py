"""The installation that is verified: what is shipped, with requests that two cores can grant."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from fvt.cluster import RUNTIME_PODS
from fvt.waiting import wait

if TYPE_CHECKING:
    from fvt.cluster import JSON, Cluster

ROOT = Path(__file__).parent.parent
SETTINGS = "model-serving-config"
_MOMENT_SECONDS = 1.0
_CPU_REQUEST = re.compile(r"(requests:\s+cpu: )500m")
_FVT: JSON = {
    "podsPerRuntime": 1,
    "scaleToZero": {"enabled": False},
    "modelMeshResources": {
        "requests": {"cpu": "50m", "memory": "448Mi"},
        "limits": {"cpu": "3", "memory": "448Mi"},
    },
}
"""Settings of all parts but the tutorial, which runs with the shipped ones. Pods stay, so that cases side by
side do not take each other's away."""


def write(folder: Path) -> Path:
    """Write copies of `config`, and beside it of `runtimes` with 50m of CPU each; return the former."""
    for name in ("config", "runtimes"):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(ROOT / name, folder / name)
    changed = 0
    for file in (folder / "runtimes").glob("*.yaml"):
        text, count = _CPU_REQUEST.subn(r"\g<1>50m", file.read_text())
        file.write_text(text)
        changed += count
    assert changed, "no runtime in runtimes/ requests 500m of CPU any more: correct the FVT's overlay"
    return folder / "config"


def settings(**changes: object) -> JSON:
    """Return ConfigMap `model-serving-config` with the FVT's settings and `changes`."""
    content = yaml.safe_dump(_FVT | changes)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": SETTINGS},
        "data": {"config.yaml": content},
    }


def configure(cluster: Cluster, **changes: object) -> None:
    """Put settings into effect in the controller's namespace."""
    cluster.apply(settings(**changes))


def wait_settled(cluster: Cluster, seconds: float = 300) -> None:
    """Wait until every Deployment of a runtime is rolled out, and stays so for a moment.

    The moment is for a change that the controller is about to make.
    """

    def look() -> bool:
        for found in cluster.items("deployments", RUNTIME_PODS):
            name, status = found["metadata"]["name"], found.get("status", {})
            wanted = found["spec"]["replicas"]
            counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "readyReplicas")]
            assert status.get("observedGeneration") == found["metadata"]["generation"], (
                f"{name} is not seen yet"
            )
            assert counts == [wanted] * 3, f"{name}: replicas, updated, ready are {counts} of {wanted}"
        return True

    for _ in range(2):
        wait(look, f"all runtimes of {cluster.namespace} to be rolled out", seconds)
        time.sleep(_MOMENT_SECONDS)

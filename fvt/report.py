"""What a cluster looked like when a case failed: objects, events and logs."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from fvt.cluster import Cluster

_KINDS = (
    "inferenceservices,predictors,servingruntimes,deployments,replicasets,pods,services,"
    "horizontalpodautoscalers,persistentvolumeclaims,configmaps,jobs"
)
_LINES = 400
_SUMMARY_EVENTS = 25


def dump(cluster: Cluster, folder: Path) -> str:
    """Write everything about a namespace below `folder`; return the part to read first."""
    folder.mkdir(parents=True, exist_ok=True)
    events = _say(cluster, "get", "events", "--sort-by=.lastTimestamp")
    overview = [
        _say(cluster, "get", "inferenceservices,predictors,servingruntimes"),
        _say(cluster, "get", "deployments,pods,services", "--output=wide"),
        "\n".join(events.splitlines()[-_SUMMARY_EVENTS:]),
    ]
    (folder / "objects.yaml").write_text(_say(cluster, "get", _KINDS, "--output=yaml"))
    (folder / "nodes.txt").write_text(_say(cluster, "describe", "nodes"))
    (folder / "events.txt").write_text(events)
    for pod in _say(cluster, "get", "pods", "--output=name").split():
        name = pod.removeprefix("pod/")
        log = ("logs", pod, "--all-containers", "--prefix", f"--tail={_LINES}")
        (folder / f"{name}.log").write_text(_say(cluster, *log))
        (folder / f"{name}.before.log").write_text(_say(cluster, *log, "--previous"))
        (folder / f"{name}.txt").write_text(_say(cluster, "describe", pod))
    return "\n\n".join([*overview, f"More is in {folder}"])


def _say(cluster: Cluster, *arguments: str) -> str:
    """Return what kubectl prints, whatever it is: a report must not fail."""
    try:
        done = cluster.run(*arguments, seconds=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"kubectl {' '.join(arguments)}: {error}"
    return done.stdout or done.stderr

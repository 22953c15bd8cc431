"""Installing and removing by the scripts that users have."""

from __future__ import annotations

import logging
import subprocess
import time
from typing import TYPE_CHECKING

from fvt.overlay import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from fvt.cluster import Cluster

MARK = "modelmesh-fvt"
"""Label of the namespaces that the FVT made, and may remove."""
_WAIT_SECONDS = 180
"""Of each wait of the script, which tells what is stuck: it should be the first to give up."""
_INSTALL_SECONDS = 600
_DELETE_SECONDS = 600
_log = logging.getLogger("fvt")


def install(cluster: Cluster, config: Path, *flags: str) -> str:
    """Run `scripts/install.sh` for the cluster's namespace; return what it prints."""
    return _script(
        cluster,
        _INSTALL_SECONDS,
        "scripts/install.sh",
        "--namespace",
        cluster.namespace,
        "--install-config-path",
        str(config),
        "--timeout",
        str(_WAIT_SECONDS),
        *flags,
    )


def uninstall(cluster: Cluster, config: Path, *flags: str) -> str:
    """Run `scripts/delete.sh`; return what it prints."""
    return _script(
        cluster, _DELETE_SECONDS, "scripts/delete.sh", "-n", cluster.namespace, "-p", str(config), *flags
    )


def make_namespace(cluster: Cluster, name: str) -> None:
    """Make a namespace that the FVT may remove again; one of somebody else is an error."""
    found = cluster.find("namespace", name)
    if found is None:
        cluster.kubectl("create", "namespace", name)
        cluster.kubectl("label", "namespace", name, f"{MARK}=true")
        return
    assert found["metadata"].get("labels", {}).get(MARK), (
        f"namespace {name} is there and was not made by the FVT, which would remove what is in it: choose "
        f"another cluster, or label the namespace {MARK}=true where it may be used"
    )


def remove_namespace(cluster: Cluster, name: str) -> None:
    """Remove a namespace of the FVT with all that is in it."""
    found = cluster.find("namespace", name)
    if found is not None and found["metadata"].get("labels", {}).get(MARK):
        cluster.kubectl("delete", "namespace", name, seconds=180)


def clear(cluster: Cluster, config: Path) -> None:
    """Make the FVT's namespace, empty; an installation that a broken-off run left there is removed."""
    make_namespace(cluster, cluster.namespace)
    if cluster.find("deployment", "modelmesh-controller"):
        uninstall(cluster, config)
    remove_namespace(cluster, cluster.namespace)
    make_namespace(cluster, cluster.namespace)


def _script(cluster: Cluster, seconds: float, *command: str) -> str:
    _log.info("$ %s", " ".join(command))
    began = time.monotonic()
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=cluster.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=seconds,
    )
    _log.info("%s ended with %s after %.0f s", command[0], done.returncode, time.monotonic() - began)
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}"
    return done.stdout

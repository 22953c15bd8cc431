"""Etcd and kube-apiserver for the tests that run on a real API server.

`python -m hack.kube_apiserver` builds kube-apiserver where it is missing (about 5 minutes of two cores, once)
and prints its path.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from controller.runtime.testing import Binaries, TestEnvironmentError
from hack.native_cluster import programs
from hack.native_cluster.errors import NativeClusterError
from local import tools
from local.home import Home


def binaries() -> Binaries:
    """Return etcd and kube-apiserver: those of KUBEBUILDER_ASSETS, else built or installed here.

    Raises:
        TestEnvironmentError: there are none and they cannot be had.
    """
    if os.environ.get("KUBEBUILDER_ASSETS"):
        return Binaries.from_environment()
    folder = Home.from_environment().tools
    given = os.environ.get("MODELMESH_ETCD")
    try:
        built = programs.build_kubernetes(folder, ["kube-apiserver"])
    except NativeClusterError as error:
        raise TestEnvironmentError(
            f"{error}; or set KUBEBUILDER_ASSETS to a folder with etcd and kube-apiserver"
        ) from error
    return Binaries(
        Path(given) if given else tools.ensure(tools.ETCD, folder),
        built / "kube-apiserver",
    )


if __name__ == "__main__":
    try:
        print(binaries().kube_apiserver)
    except TestEnvironmentError as error:
        sys.exit(str(error))

"""Where the programs are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple, Self

from controller.runtime.testing.errors import TestEnvironmentError

ASSETS = "KUBEBUILDER_ASSETS"
"""Environment variable that names a folder with `etcd` and `kube-apiserver`, as for Go's envtest."""


class Binaries(NamedTuple):
    """The programs of an environment."""

    etcd: Path
    kube_apiserver: Path

    @classmethod
    def from_environment(cls) -> Self:
        """Return those in the folder that KUBEBUILDER_ASSETS names.

        Raises:
            TestEnvironmentError: it is not set, or a program is missing there.
        """
        folder = os.environ.get(ASSETS, "")
        if not folder:
            raise TestEnvironmentError(
                f"{ASSETS} is not set; it names the folder with etcd and kube-apiserver "
                "(setup-envtest use -p path prints one)"
            )
        found = cls(Path(folder) / "etcd", Path(folder) / "kube-apiserver")
        for program in found:
            if not os.access(program, os.X_OK):
                raise TestEnvironmentError(f"{ASSETS} is {folder}, but {program.name} is not a program there")
        return found

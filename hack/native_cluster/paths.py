"""Where the cluster keeps its files, and what it is called inside.

On the host everything lies in one folder. The programs of the cluster see that folder as `/run/cluster`,
which keeps paths of sockets short, and have `/run`, `/var/lib` and `/var/log` to themselves.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

REPOSITORY = Path(__file__).parents[2]

INSIDE = Path("/run/cluster")
"""The state folder as the cluster's programs see it."""
TOOLS_INSIDE = Path("/run/tools")
"""The folder of built programs as the cluster's programs see it."""
CONTAINERD_SOCKET = Path("/run/containerd/containerd.sock")

NODE = "native"
NODE_ADDRESS = "192.0.2.2"
API_PORT = 6443
POD_RANGE = "10.244.0.0/16"
SERVICE_RANGE = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
DNS_ADDRESS = "10.96.0.10"
DOMAIN = "cluster.local"
BRIDGE = "cni0"


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one cluster on the host.

    Attributes:
        state: everything that `down` removes.
        tools: built programs; they stay.
    """

    state: Path
    tools: Path

    @classmethod
    def from_environment(cls) -> Self:
        """Return the layout below $MODELMESH_HOME, by default the repository's `.modelmesh` as for `make`."""
        home = Path(os.environ.get("MODELMESH_HOME") or REPOSITORY / ".modelmesh").expanduser().absolute()
        cache = Path(os.environ.get("MODELMESH_CACHE") or home / "cache").expanduser().absolute()
        return cls(home / "native-cluster", cache / "tools")

    @property
    def holder(self) -> Path:
        """Record of the process that holds the namespaces."""
        return self.state / "holder"

    @property
    def lock(self) -> Path:
        """Held by every command that changes the cluster; beside the state, which goes away."""
        return self.state.with_name(f"{self.state.name}.lock")

    @property
    def logs(self) -> Path:
        """One log for each program."""
        return self.state / "logs"

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.state / "pki"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; its address answers inside the network namespace only."""
        return self.state / "kubeconfig"

    @property
    def cgroup(self) -> str:
        """Name of the cluster's own cgroup in every hierarchy."""
        return f"modelmesh-native-{hashlib.sha256(str(self.state).encode()).hexdigest()[:8]}"

"""The folder that holds everything of one local cluster, and the lock that says whether it runs.

Two processes hold the lock while a cluster lives (the guardian and the supervisor, see `guardian.py`), so a
free lock proves that both are gone, however they ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Self

from local.errors import AlreadyRunningError, LocalError, NotRunningError

NAMESPACE = "modelmesh-serving"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where a cluster listens on 127.0.0.1, and what it starts with.

    Attributes:
        grpc_port: inference by gRPC, shared by the mesh processes.
        rest_port: inference by REST, shared by the mesh processes.
        api_port: the Kubernetes API.
        manifests: files applied after the start, in order.
        samples: whether the sample models are trained and stored.
        profiles: files of further local profiles.
        runtimes: server types whose shipped runtimes exist from the start; their environments are built.
    """

    grpc_port: int = 8033
    rest_port: int = 8008
    api_port: int = 16443
    manifests: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    samples: bool = True
    runtimes: tuple[str, ...] = ("mlserver",)


TUPLES = ("manifests", "profiles", "runtimes")
"""Settings that JSON keeps as lists."""


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What a running cluster says about itself in `state.json`.

    Attributes:
        pid: the process to send SIGTERM to.
        settings: what it was started with.
        ready: whether the start is complete.
        s3_endpoint: URL of the S3 server with the sample models; empty until known.
    """

    pid: int
    settings: Settings
    ready: bool = False
    s3_endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Home:
    """The paths of one cluster, below $MODELMESH_HOME, and of what clusters share, below $MODELMESH_CACHE."""

    root: Path
    cache: Path

    @classmethod
    def from_environment(cls) -> Self:
        """Return the home named by $MODELMESH_HOME, else ~/.modelmesh; its cache is HOME/cache by default."""
        root = Path(os.environ.get("MODELMESH_HOME") or "~/.modelmesh").expanduser().absolute()
        cache = os.environ.get("MODELMESH_CACHE")
        return cls(root, Path(cache).expanduser().absolute() if cache else root / "cache")

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of the cluster's API server."""
        return self.root / "kubeconfig"

    @property
    def tools(self) -> Path:
        """Programs installed from PyPI."""
        return self.cache / "tools"

    @property
    def environments(self) -> Path:
        """Python environments of model servers."""
        return self.cache / "environments"

    @property
    def samples(self) -> Path:
        """Trained sample models."""
        return self.cache / "samples"

    @property
    def pods(self) -> Path:
        """Volumes and working folders of running pods."""
        return self.root / "pods"

    @property
    def logs(self) -> Path:
        """Logs of containers, of the present or last run."""
        return self.root / "logs"

    @property
    def supervisor_log(self) -> Path:
        """Log of the supervisor, of the present or last run."""
        return self.root / "supervisor.log"

    def lock(self) -> IO[bytes]:
        """Take the lock of this home; it lasts until every process that inherited the file has ended.

        Raises:
            AlreadyRunningError: another cluster has it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        file = (self.root / "lock").open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise AlreadyRunningError(
                f"a local cluster with home {self.root} runs already; stop it with: modelmesh local down",
            ) from None
        return file

    def is_running(self) -> bool:
        """Return whether a process holds the lock."""
        try:
            self.lock().close()
        except AlreadyRunningError:
            return True
        return False

    def wait_until_stopped(self, seconds: float) -> bool:
        """Wait until no process holds the lock; False if one still does after `seconds`."""
        deadline = time.monotonic() + seconds
        while self.is_running():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def write_state(self, state: ClusterState) -> None:
        """Replace `state.json` as a whole."""
        draft = self.root / "state.json.new"
        draft.write_text(json.dumps(asdict(state), indent=2) + "\n")
        draft.replace(self.root / "state.json")

    def read_state(self) -> ClusterState:
        """Return the state of the running cluster.

        Raises:
            NotRunningError: none runs.
            LocalError: one runs but its state cannot be read.
        """
        if not self.is_running():
            raise NotRunningError(
                f"no local cluster runs with home {self.root}; start one: modelmesh local up"
            )
        try:
            raw = json.loads((self.root / "state.json").read_text())
            for name in TUPLES:
                raw["settings"][name] = tuple(raw["settings"][name])
            return ClusterState(**raw | {"settings": Settings(**raw["settings"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LocalError(f"{self.root / 'state.json'} cannot be read: {error}") from error

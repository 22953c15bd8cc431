"""`kubectl port-forward`, kept open."""

from __future__ import annotations

import re
import subprocess
import threading
from typing import TYPE_CHECKING, Self

from fvt.waiting import wait

if TYPE_CHECKING:
    from fvt.cluster import Cluster

_OPEN = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")
_BROKEN = ("lost connection", "error forwarding", "an error occurred")
_TELLING_SECONDS = 0.5


class Forward:
    """A port of a Service or pod on a free port of this machine, opened again where it broke.

    kubectl chooses one pod when it starts, and the connection ends with that pod.
    """

    def __init__(self, cluster: Cluster, target: str, port: int) -> None:
        self._cluster = cluster
        self._target = target
        self._port = port
        self._process: subprocess.Popen[str] | None = None
        self._lines: list[str] = []
        self._reader: threading.Thread | None = None
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def broken(self) -> bool:
        """Whether the connection to the pod ended."""
        return self._process is None or self._process.poll() is not None or self._ended.is_set()

    def lost(self) -> bool:
        """Say whether an error seen just now may be the forward's: kubectl tells it a moment later."""
        self._ended.wait(_TELLING_SECONDS)
        return self.broken

    def address(self) -> str:
        """Return `127.0.0.1:PORT`, opening the connection where there is none."""
        if self.broken:
            self.close()
            wait(self._open, f"a forward to {self._target} port {self._port}", 120)
        return next(f"127.0.0.1:{found[1]}" for line in self._lines if (found := _OPEN.match(line)))

    def close(self) -> None:
        """End kubectl."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._reader is not None:
            self._reader.join()
            self._reader = None

    def _open(self) -> bool:
        self.close()
        self._lines = []
        self._ended = ended = threading.Event()
        self._process = subprocess.Popen(
            [
                "kubectl",
                "--namespace",
                self._cluster.namespace,
                "port-forward",
                self._target,
                f":{self._port}",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._cluster.environment,
        )
        first = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._process, first, ended), daemon=True)
        self._reader.start()
        first.wait(20)
        assert any(map(_OPEN.match, self._lines)), f"kubectl port-forward: {self._lines}"
        return True

    def _read(self, process: subprocess.Popen[str], first: threading.Event, ended: threading.Event) -> None:
        """Read all that kubectl prints: a full pipe would stop it."""
        assert process.stdout is not None
        lines = self._lines
        for line in process.stdout:
            lines.append(line.rstrip())
            first.set()
            if any(text in line for text in _BROKEN):
                ended.set()
        process.stdout.close()
        first.set()
        ended.set()

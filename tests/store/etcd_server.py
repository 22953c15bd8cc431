"""A real etcd on free loopback ports."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

START_SECONDS = 20


def binary() -> str:
    """From $MODELMESH_ETCD or PATH, if etcdctl is there too; else what local mode would use."""
    given = os.environ.get("MODELMESH_ETCD") or shutil.which("etcd")
    if given and Path(given).with_name("etcdctl").exists():
        return given
    from local import tools  # noqa: PLC0415 - only where nothing nearer is found
    from local.home import Home  # noqa: PLC0415

    complete = replace(tools.ETCD, from_path=False)
    return str(tools.ensure(complete, Home.from_environment().tools))


def free_port() -> int:
    """A port that nobody listens on now, below those that the system gives to outgoing connections."""
    while True:
        port = random.randrange(12_000, 20_000)  # noqa: S311 - no secret
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


class EtcdServer:
    """One etcd process; it can be stopped and started again on the same port, with or without its data."""

    def __init__(self, folder: Path, *flags: str, scheme: str = "http") -> None:
        self.port = free_port()
        self.endpoint = f"127.0.0.1:{self.port}"
        self.folder = folder
        self._scheme = scheme
        self._peer_port = free_port()
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        peer = f"http://127.0.0.1:{self._peer_port}"
        self._process = subprocess.Popen(
            [
                binary(),
                f"--data-dir={self.folder / 'data'}",
                f"--listen-client-urls={self._scheme}://{self.endpoint}",
                f"--advertise-client-urls={self._scheme}://{self.endpoint}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                "--unsafe-no-fsync",
                "--log-level=error",
                *self._flags,
            ],
            stdout=sys.stderr,
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.5):
                return
            assert self._process.poll() is None, "etcd ended at its start"
            time.sleep(0.02)
        raise AssertionError("etcd did not start")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Hangs: connections stay, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)  # all its threads have stopped

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def control(self, *arguments: str) -> str:
        """Runs etcdctl, which lies beside etcd."""
        command = [str(Path(binary()).with_name("etcdctl")), f"--endpoints={self._scheme}://{self.endpoint}"]
        return subprocess.run([*command, *arguments], check=True, capture_output=True, text=True).stdout

    def compact(self) -> None:
        """Forgets the whole history."""
        status = json.loads(self.control("endpoint", "status", "--write-out=json"))
        self.control("compaction", str(status[0]["Status"]["header"]["revision"]))

    def wipe(self) -> None:
        shutil.rmtree(self.folder / "data", ignore_errors=True)


@contextlib.contextmanager
def etcd_server(folder: Path, *flags: str, scheme: str = "http") -> Iterator[EtcdServer]:
    """Runs one for the time of the block."""
    server = EtcdServer(folder, *flags, scheme=scheme)
    try:
        server.start()
        yield server
    finally:
        server.stop()

"""The network, mount and process namespaces in which the whole cluster lives.

One process holds them: process 1 of the process namespace. Killing it ends every process of the cluster, and
with the last one the kernel takes the mounts, interfaces and firewall rules away. So nothing can be left
behind but files and empty cgroups.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from hack.native_cluster.errors import NativeClusterError
from hack.native_cluster.paths import (
    BRIDGE,
    INSIDE,
    NODE_ADDRESS,
    SERVICE_RANGE,
    TOOLS_INSIDE,
)
from hack.native_cluster.programs import SEARCH_PATH, which

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hack.native_cluster.paths import Layout

_KINDS = ("--net", "--mount", "--pid")
_START_SECONDS = 10.0
_STOP_SECONDS = 30.0

# The folders are opened before /run and /var/lib are covered: they may lie below.
_PREPARE = f"""
exec 3<"$1" 4<"$2"
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/lib
mount -t tmpfs -o mode=755 tmpfs /var/log
mkdir {INSIDE} {TOOLS_INSIDE}
mount --no-canonicalize --bind /proc/self/fd/3 {INSIDE}
mount --no-canonicalize --bind /proc/self/fd/4 {TOOLS_INSIDE}
mount --make-rshared /

ip link set lo up
ip link add eth0 type veth peer name eth1
ip address add {NODE_ADDRESS}/24 dev eth0
ip link set eth0 up
ip link set eth1 up
ip route add default via {NODE_ADDRESS.rpartition(".")[0]}.1 dev eth0
# While kube-proxy is down, packets to Services must not take the default route.
ip link add {BRIDGE} type bridge
ip link set {BRIDGE} up
ip route add {SERVICE_RANGE} dev {BRIDGE}
echo 1 > /proc/sys/net/ipv4/ip_forward
[ ! -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables
"""


@dataclass(frozen=True, slots=True)
class Process:
    """A process inside.

    Attributes:
        pid: its number on the host.
        program: path of its program as the process sees it.
        environment: its variables.
    """

    pid: int
    program: str
    environment: dict[str, str]


class Namespaces:
    """The namespaces of one cluster.

    Args:
        layout: where the record of the holding process is kept.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def holder(self) -> int | None:
        """Return the number of the process that holds the namespaces; None where there is none."""
        try:
            pid, started = self._layout.holder.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid) if _started(int(pid)) == started else None

    def start(self, pause: Path) -> bool:
        """Make the namespaces where there are none; say whether they were made.

        Args:
            pause: program of the holding process.

        Raises:
            NativeClusterError: the machine refuses.
        """
        if self.holder():
            return False
        parent = subprocess.Popen(
            [
                which("unshare"),
                *(*_KINDS, "--fork", "--mount-proc", "--kill-child"),
                *("--", pause),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            env={"PATH": SEARCH_PATH},
            start_new_session=True,
        )
        holder = self._wait_for_child(parent, pause)
        draft = self._layout.holder.with_suffix(".new")
        draft.write_text(f"{holder} {_started(holder)}")
        draft.rename(self._layout.holder)
        try:
            self.run(["sh", "-euc", _PREPARE, "sh", str(self._layout.state), str(self._layout.tools)])
        except NativeClusterError:
            self.stop()
            raise
        return True

    def stop(self) -> None:
        """End every process inside, and with them the namespaces."""
        holder = self.holder()
        if holder is None:
            return
        os.kill(holder, signal.SIGKILL)
        deadline = time.monotonic() + _STOP_SECONDS
        # Process 1 is not gone before all the others of its namespace are.
        while _started(holder):
            if time.monotonic() > deadline:
                raise NativeClusterError(
                    f"process {holder} of the cluster does not end in {_STOP_SECONDS:.0f} s: ps -fp {holder}"
                )
            time.sleep(0.05)
        self._layout.holder.unlink()

    def enter(self, *kinds: str) -> list[str]:
        """Return the command line that enters the namespaces; the command follows it.

        Args:
            kinds: of `net`, `mount` and `pid`; all by default.

        Raises:
            NativeClusterError: there are none.
        """
        holder = self.holder()
        if holder is None:
            raise NativeClusterError("the native cluster is down; start it with: hack/native-cluster up")
        wanted = [f"--{kind}" for kind in kinds or ("net", "mount", "pid")]
        return [str(which("nsenter")), "--target", str(holder), *wanted, "--"]

    def run(
        self,
        command: Sequence[str | Path],
        *,
        given: bytes | IO[bytes] | None = None,
        check: bool = True,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, to its end.

        Args:
            command: its program's path as seen inside, and arguments.
            given: its standard input; nothing by default.
            check: whether a status other than 0 is an error.
            timeout: in seconds.

        Raises:
            NativeClusterError: the command fails or takes too long.
        """
        text = [str(part) for part in command]
        try:
            done = subprocess.run(
                [*self.enter(), *text],
                input=given if isinstance(given, bytes) else None,
                stdin=None if isinstance(given, bytes) else given or subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=timeout,
                env={"PATH": SEARCH_PATH},
            )
        except subprocess.TimeoutExpired as error:
            raise NativeClusterError(f"`{' '.join(text[:4])}` takes more than {timeout:.0f} s") from error
        result = subprocess.CompletedProcess(
            text, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        if check and result.returncode:
            raise NativeClusterError(
                f"`{' '.join(text[:4])}` in the cluster's namespaces ended with status {result.returncode}: "
                f"{result.stderr.strip()[-1000:]}"
            )
        return result

    def processes(self) -> list[Process]:
        """Return the processes inside, without those of pods, which have process namespaces of their own."""
        holder = self.holder()
        if holder is None:
            return []
        namespace = Path(f"/proc/{holder}/ns/pid").readlink()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            # A process may end at any line.
            with suppress(OSError):
                if (folder / "ns/pid").readlink() == namespace:
                    variables = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
                    program = str((folder / "exe").readlink()).removesuffix(" (deleted)")
                    environment = dict(variable.split("=", 1) for variable in variables if "=" in variable)
                    found.append(Process(int(folder.name), program, environment))
        return found

    def _wait_for_child(self, parent: subprocess.Popen[bytes], program: Path) -> int:
        deadline = time.monotonic() + _START_SECONDS
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        while time.monotonic() < deadline and parent.poll() is None:
            with suppress(OSError):
                for child in children.read_text().split():
                    if Path(f"/proc/{child}/exe").readlink() == program.resolve():
                        return int(child)
            time.sleep(0.01)
        parent.kill()
        said = parent.communicate()[1].decode(errors="replace").strip()
        raise NativeClusterError(
            f"namespaces cannot be made: {said or 'unshare hangs'}; the cluster needs root with CAP_SYS_ADMIN"
        )


def refused() -> str:
    """Say why this process may not make the namespaces; nothing where it may."""
    command = [str(which("unshare")), *_KINDS, "--fork", "--mount-proc", "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


def _started(pid: int) -> str:
    """Return what tells a process from a later one of the same number; nothing where it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return "" if state in "ZX" else f"{boot}/{fields[18]}"

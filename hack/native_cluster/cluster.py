"""Brings the cluster up, takes it down, and says how it is."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import string
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hack.native_cluster import cgroups, images, programs
from hack.native_cluster.certificates import USERS, Authority
from hack.native_cluster.errors import NativeClusterError
from hack.native_cluster.namespaces import Namespaces
from hack.native_cluster.namespaces import refused as namespaces_refused
from hack.native_cluster.parts import KUBECONFIGS, PART_NAMES, Part, all_parts
from hack.native_cluster.paths import (
    CONTAINERD_SOCKET,
    DNS_ADDRESS,
    DOMAIN,
    INSIDE,
    TOOLS_INSIDE,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hack.native_cluster.paths import Layout

_MANIFESTS = Path(__file__).parent / "manifests"
_PART = "NATIVE_CLUSTER_PART"
"""Variable by which a process tells which part it is and what it was started with, as `NAME=DIGEST`."""
_READY_SECONDS = 180.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.2
_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Cluster:
    """One native cluster.

    Args:
        layout: its folders.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._namespaces = Namespaces(layout)

    def missing(self) -> list[str]:
        """Return what this machine lacks, each with what to do about it."""
        found = []
        if os.geteuid() != 0:
            found.append("it needs root, for namespaces and containers: run it by sudo, or as root")
        if sys.platform != "linux":
            found.append("it needs Linux")
        if packages := programs.missing_packages():
            found.append(f"packages are missing: {programs.install_command(packages)}")
        elif os.geteuid() == 0 and (refusal := namespaces_refused()):
            found.append(
                f"the kernel refuses namespaces ({refusal}): it needs all capabilities, CAP_SYS_ADMIN too"
            )
        if not programs.has_go(self._layout.tools):
            found.append(
                "Go 1.24 or newer is missing, which builds Kubernetes: install it (https://go.dev/dl)"
            )
        return found

    def up(self) -> None:
        """Bring the whole cluster up and wait until it serves: what runs already stays as it is.

        Raises:
            NativeClusterError: the machine lacks something, or a part does not get ready.
        """
        if missing := self.missing():
            raise NativeClusterError("this machine cannot run the native cluster:\n" + "\n".join(missing))
        with self._alone():
            kubernetes, pause = self._build()
            if self._namespaces.start(pause):
                say("namespaces made")
            cgroups.create(self._layout.cgroup)
            self._write_identities()
            parts = all_parts(TOOLS_INSIDE / kubernetes.name, self._layout.cgroup)
            for part in parts:
                self._write_files(part)
            self._stop_outdated(parts)
            for part in parts:
                self._start(part)
                if part.name == "kube-apiserver":
                    self._wait(self._api_problem, "kube-apiserver")
                elif part.name == "containerd":
                    self._wait(self._containerd_problem, "containerd")
                    self._load_own_images()
            self._apply_manifests()
            self._wait(self._node_problem, "kubelet")
            self._wait(self._dns_problem, "coredns")
            self._wait(self._storage_problem, "local-path-provisioner")
            for name in PART_NAMES:
                if name not in self._running():
                    raise NativeClusterError(f"{name} has ended\n{self._last_words(name)}")
        say(f"the native cluster is up: Kubernetes {programs.kubernetes_version()}, one node")

    def down(self) -> None:
        """End every process of the cluster and remove all its files but built programs."""
        with self._alone():
            self._namespaces.stop()
            cgroups.remove(self._layout.cgroup)
            shutil.rmtree(self._layout.state)
        self._layout.lock.unlink(missing_ok=True)

    def status(self) -> list[tuple[str, str]]:
        """Return each part with how it is; `down` alone where there is no cluster."""
        if self._namespaces.holder() is None:
            return [("cluster", "down")]
        running = self._running()
        rows = [
            (
                name,
                f"running, pid {running[name]}" if name in running else "not running: `up` starts it",
            )
            for name in PART_NAMES
        ]
        checks = (
            ("api", self._api_problem),
            ("node", self._node_problem),
            ("dns", self._dns_problem),
            ("storage", self._storage_problem),
        )
        return rows + [(name, check() or "ready") for name, check in checks]

    def load_image(self, archives: Sequence[Path]) -> list[str]:
        """Load docker-archive files; return the names of images that were not there yet.

        Raises:
            NativeClusterError: the cluster is down, or a file is none.
        """
        with self._alone():
            return [name for archive in archives for name in images.load(self._namespaces, archive)]

    def execute(self, command: Sequence[str]) -> None:
        """Become a command in the cluster's network, with kubectl, grpcurl and kustomize on PATH.

        Raises:
            NativeClusterError: the cluster is down, or there is no such command.
        """
        enter = self._namespaces.enter("net")
        path = ":".join([*(str(folder) for folder in self._tool_folders()), programs.SEARCH_PATH])
        environment = os.environ | {"KUBECONFIG": str(self._layout.kubeconfig), "PATH": path}
        program = shutil.which(command[0], path=path)
        if program is None:
            raise NativeClusterError(f"there is no program {command[0]}")
        os.execve(enter[0], [*enter, program, *command[1:]], environment)  # noqa: S606 -- no shell is wanted

    # ------------------------------------------------------------ up, step by step

    def _build(self) -> tuple[Path, Path]:
        """Build what is missing; return the folder of Kubernetes' programs and the pause program."""
        tools = self._layout.tools
        tools.mkdir(parents=True, exist_ok=True)
        kubernetes = programs.build_kubernetes(tools)
        pause = programs.build_pause(tools)
        own = images.own_images(
            pause, programs.build(programs.COREDNS, tools), programs.build(programs.LOCAL_PATH, tools)
        )
        for program in (programs.GRPCURL, programs.KUSTOMIZE):
            programs.build(program, tools)
        for image in own:
            archive = self._archive(image.name)
            if not archive.exists() or any(newer(program, archive) for program in image.programs.values()):
                images.write_archive(image, archive)
        return kubernetes, pause

    def _archive(self, image: str) -> Path:
        return self._layout.state / "images" / f"{image.rpartition('/')[2].replace(':', '-')}.tar"

    def _write_identities(self) -> None:
        authority = Authority(self._layout.pki)
        authority.issue_all()
        for user in USERS:
            text = authority.kubeconfig(user)
            write_changed(self._layout.state / KUBECONFIGS.name / user, text, mode=0o600)
        write_changed(self._layout.kubeconfig, authority.kubeconfig("admin"), mode=0o600)

    def _write_files(self, part: Part) -> None:
        for name, text in part.files.items():
            write_changed(self._layout.state / "config" / name, text)

    def _running(self) -> dict[str, int]:
        found = {}
        for process in self._namespaces.processes():
            name = process.environment.get(_PART, "").partition("=")[0]
            # A child has its parent's variables, but another program.
            if name and Path(process.program).name == name:
                found[name] = process.pid
        return found

    def _stop_outdated(self, parts: Sequence[Part]) -> None:
        wanted = {f"{part.name}={part.digest}" for part in parts}
        for process in self._namespaces.processes():
            marker = process.environment.get(_PART, "")
            name = marker.partition("=")[0]
            if name and Path(process.program).name == name and marker not in wanted:
                say(f"{name} has other settings now: starting it again")
                os.kill(process.pid, signal.SIGTERM)
                deadline = time.monotonic() + _STOP_SECONDS
                while Path(f"/proc/{process.pid}").exists():
                    if time.monotonic() > deadline:
                        with suppress(ProcessLookupError):
                            os.kill(process.pid, signal.SIGKILL)
                    time.sleep(_POLL_SECONDS)

    def _start(self, part: Part) -> None:
        if part.name in self._running():
            return
        self._layout.logs.mkdir(exist_ok=True)
        say(f"starting {part.name}")
        with (self._layout.logs / f"{part.name}.log").open("ab") as log:
            # setsid leaves the program to process 1 inside: none of ours stays on the host.
            subprocess.run(
                [*self._namespaces.enter(), "setsid", "--fork", str(part.program), *part.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": _SEARCH, _PART: f"{part.name}={part.digest}"},
                check=True,
            )

    def _load_own_images(self) -> None:
        for archive in sorted((self._layout.state / "images").glob("*.tar")):
            images.load(self._namespaces, archive)

    def _apply_manifests(self) -> None:
        values = {
            "COREDNS_IMAGE": images.COREDNS_IMAGE,
            "LOCAL_PATH_IMAGE": images.LOCAL_PATH_IMAGE,
            "BUSYBOX_IMAGE": images.BUSYBOX_IMAGE,
            "DNS_ADDRESS": DNS_ADDRESS,
            "DOMAIN": DOMAIN,
            "VOLUMES": str(INSIDE / "volumes"),
        }
        (self._layout.state / "volumes").mkdir(exist_ok=True)
        texts = [
            string.Template(path.read_text()).substitute(values) for path in sorted(_MANIFESTS.iterdir())
        ]
        self._kubectl("apply", "--filename=-", given="---\n".join(texts).encode())

    # ------------------------------------------------------------ what is not ready yet

    def _wait(self, problem: Callable[[], str], part: str) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while what := problem():
            if time.monotonic() > deadline:
                raise NativeClusterError(
                    f"{part} is not ready after {_READY_SECONDS:.0f} s: {what}\n{self._last_words(part)}"
                )
            time.sleep(_POLL_SECONDS)

    def _api_problem(self) -> str:
        done = self._kubectl("get", "--raw=/readyz", check=False)
        return "" if done.returncode == 0 else done.stderr.strip()

    def _containerd_problem(self) -> str:
        done = self._namespaces.run(
            [str(programs.which("ctr")), f"--address={CONTAINERD_SOCKET}", "version"], check=False
        )
        return "" if done.returncode == 0 else done.stderr.strip()

    def _node_problem(self) -> str:
        done = self._kubectl("get", "nodes", "--output=json", check=False)
        if done.returncode:
            return done.stderr.strip()
        conditions = [
            condition
            for node in json.loads(done.stdout)["items"]
            for condition in node.get("status", {}).get("conditions", [])
            if condition["type"] == "Ready"
        ]
        waiting = [condition for condition in conditions if condition["status"] != "True"]
        if not conditions:
            return "the node has not registered"
        return f"the node is not ready: {waiting[0].get('message', '')}" if waiting else ""

    def _dns_problem(self) -> str:
        name = f"kubernetes.default.svc.{DOMAIN}"
        command = ["timeout", "3", str(programs.which("busybox")), "nslookup", "-type=a", name, DNS_ADDRESS]
        done = self._namespaces.run(command, check=False)
        return "" if done.returncode == 0 else f"{name} does not resolve: {' '.join(done.stdout.split())}"

    def _storage_problem(self) -> str:
        done = self._kubectl(
            *("get", "deployment", "local-path-provisioner", "--namespace=local-path-storage"),
            "--output=jsonpath={.status.readyReplicas}",
            check=False,
        )
        return "" if done.stdout.strip() == "1" else done.stderr.strip() or "its pod is not ready"

    def _last_words(self, part: str) -> str:
        log = self._layout.logs / f"{part}.log"
        if log.exists():
            return f"{log} ends with:\n" + "".join(log.open(errors="replace").readlines()[-10:])
        done = self._kubectl("get", "pods,events", "--all-namespaces", check=False)
        return done.stdout[-3000:]

    # ------------------------------------------------------------ helpers

    def _kubectl(
        self, *arguments: str, given: bytes | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        program = TOOLS_INSIDE / programs.kubernetes_folder(self._layout.tools).name / "kubectl"
        kubeconfig = INSIDE / self._layout.kubeconfig.name
        command = [str(program), f"--kubeconfig={kubeconfig}", "--request-timeout=5s", *arguments]
        return self._namespaces.run(command, given=given, check=check)

    def _tool_folders(self) -> list[Path]:
        tools = self._layout.tools
        others = [
            programs.go_target(program, tools).parent for program in (programs.GRPCURL, programs.KUSTOMIZE)
        ]
        return [programs.kubernetes_folder(tools), *others]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold off every other command that changes this cluster."""
        self._layout.state.mkdir(parents=True, exist_ok=True)
        with self._layout.lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def say(text: str) -> None:
    """Tell the user what happens."""
    print(text, file=sys.stderr, flush=True)


def newer(file: Path, other: Path) -> bool:
    """Say whether a file was written after another one."""
    return file.stat().st_mtime > other.stat().st_mtime


def write_changed(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file where its content differs: programs that watch their files would start again."""
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=mode)
    path.write_text(text)

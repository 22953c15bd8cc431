"""Programs that the cluster runs: packages of the distribution, and what is built with Go, once.

Kubernetes' own six are tools of the Go module in `hack/kubernetes`, which pins them and all that they need;
the others are installed as their authors publish them. The six take about 5 minutes of two cores and 2 GB of
Go's build cache. Built programs stay in $MODELMESH_HOME/cache/tools until a pin changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hack.native_cluster.errors import NativeClusterError
from hack.native_cluster.paths import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

KUBERNETES = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
)
_MODULE = REPOSITORY / "hack" / "kubernetes"
_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
_PAUSE = Path(__file__).parent / "pause.go"
SEARCH_PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for: cron and sudo may leave the folders of administration out of PATH."""
CNI_PLUGINS = Path("/usr/lib/cni")


@dataclass(frozen=True, slots=True)
class GoProgram:
    """A program that `go install` builds.

    Attributes:
        name: of the program.
        package: its import path.
        version: of the package's module.
    """

    name: str
    package: str
    version: str


COREDNS = GoProgram("coredns", "github.com/coredns/coredns", "v1.12.0")
LOCAL_PATH = GoProgram("local-path-provisioner", "github.com/rancher/local-path-provisioner", "v0.0.30")
GRPCURL = GoProgram("grpcurl", "github.com/fullstorydev/grpcurl/cmd/grpcurl", "v1.9.3")
KUSTOMIZE = GoProgram("kustomize", "sigs.k8s.io/kustomize/kustomize/v5", "v5.8.1")

# program -> package of Debian and Ubuntu
_PACKAGES = {
    "busybox": "busybox-static",
    "conntrack": "conntrack",
    "containerd": "containerd",
    "ctr": "containerd",
    "etcd": "etcd-server",
    "ip": "iproute2",
    "iptables": "iptables",
    "mount": "mount",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "runc": "runc",
    "socat": "socat",
    "sysctl": "procps",
    "unshare": "util-linux",
}
_CNI_PACKAGE = "containernetworking-plugins"


def missing_packages() -> list[str]:
    """Return the packages of Debian and Ubuntu that are not installed, as far as the cluster needs them."""
    missing = {
        package for program, package in _PACKAGES.items() if shutil.which(program, path=SEARCH_PATH) is None
    }
    if not all((CNI_PLUGINS / plugin).exists() for plugin in ("bridge", "host-local", "loopback", "portmap")):
        missing.add(_CNI_PACKAGE)
    return sorted(missing)


def which(program: str) -> Path:
    """Return the path of an installed program.

    Raises:
        NativeClusterError: it is missing.
    """
    found = shutil.which(program, path=SEARCH_PATH)
    if found is None:
        raise NativeClusterError(f"{program} is missing: {install_command([_PACKAGES[program]])}")
    return Path(found).resolve()


def install_command(packages: Sequence[str]) -> str:
    """Return the command that installs packages."""
    return f"apt-get update && apt-get install --no-install-recommends {' '.join(packages)}"


def has_go(folder: Path) -> bool:
    """Say whether all programs are built, or Go is there to build them."""
    return shutil.which("go") is not None or all(path.exists() for path in _targets(folder))


def kubernetes_version() -> str:
    """Return the version of Kubernetes that is built, such as `v1.34.4`."""
    found = re.search(r"k8s\.io/kubernetes (v\S+)", (_MODULE / "go.mod").read_text())
    if found is None:
        raise NativeClusterError(f"{_MODULE / 'go.mod'} does not require k8s.io/kubernetes")
    return found[1]


def build_kubernetes(folder: Path, programs: Sequence[str] = KUBERNETES) -> Path:
    """Build programs of Kubernetes where they are missing, and return the folder that holds them.

    Args:
        folder: of all tools.
        programs: which of `KUBERNETES`.

    Raises:
        NativeClusterError: Go is missing, or a build fails.
    """
    target = kubernetes_folder(folder)
    version = kubernetes_version()
    major, minor = version.removeprefix("v").split(".")[:2]
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    linked = [f"-X {package}.{key}={value}" for package in _VERSION_PACKAGES for key, value in values.items()]
    for program in programs:
        with _missing(target / program) as draft:
            if draft:
                _go(
                    *("build", "-trimpath", "-buildvcs=false", "-mod=readonly"),
                    *(f"-ldflags=-s -w {' '.join(linked)}", "-o", str(draft)),
                    f"k8s.io/kubernetes/cmd/{program}",
                    what=f"{program} {version}",
                    cwd=_MODULE,
                )
    return target


def build(program: GoProgram, folder: Path) -> Path:
    """Build a program where it is missing, and return its path.

    Raises:
        NativeClusterError: Go is missing, or the build fails.
    """
    target = go_target(program, folder)
    with _missing(target) as draft:
        if draft:
            bin_folder = target.parent / "new"
            _go(
                *("install", "-trimpath", "-ldflags=-s -w", f"{program.package}@{program.version}"),
                what=f"{program.name} {program.version}",
                cwd=target.parent,
                environment={"GOBIN": str(bin_folder)},
            )
            (bin_folder / program.name).rename(draft)
            bin_folder.rmdir()
    return target


def build_pause(folder: Path) -> Path:
    """Build the program that does nothing, which holds namespaces, and return its path.

    Raises:
        NativeClusterError: Go is missing, or the build fails.
    """
    target = pause_target(folder)
    with _missing(target) as draft:
        if draft:
            _go(
                *("build", "-trimpath", "-ldflags=-s -w", "-o", str(draft), str(_PAUSE)),
                what="pause",
                cwd=target.parent,
            )
    return target


def _targets(folder: Path) -> list[Path]:
    kubernetes = [kubernetes_folder(folder) / program for program in KUBERNETES]
    others = [go_target(program, folder) for program in (COREDNS, LOCAL_PATH, GRPCURL, KUSTOMIZE)]
    return [*kubernetes, *others, pause_target(folder)]


def kubernetes_folder(folder: Path) -> Path:
    """Return the folder of Kubernetes' programs, built or not."""
    return folder / f"kubernetes-{kubernetes_version()}-{_digest(_MODULE / 'go.mod', _MODULE / 'go.sum')}"


def go_target(program: GoProgram, folder: Path) -> Path:
    """Return the path of a program, built or not."""
    return folder / f"{program.name}-{program.version}" / program.name


def pause_target(folder: Path) -> Path:
    """Return the path of the pause program, built or not."""
    return folder / f"pause-{_digest(_PAUSE)}" / "pause"


def _digest(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]


@contextmanager
def _missing(target: Path) -> Iterator[Path | None]:
    """Yield where to build a missing `target`, alone on this machine; nothing where it is there already."""
    if target.exists():
        yield None
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            yield None
            return
        draft = target.with_name(f"{target.name}.new")
        yield draft
        draft.rename(target)


def _go(*arguments: str, what: str, cwd: Path, environment: dict[str, str] | None = None) -> None:
    go = shutil.which("go")
    if go is None:
        raise NativeClusterError(
            f"{what} is built with Go 1.24 or newer, and there is no go on PATH: install it (https://go.dev/dl)"
        )
    print(f"building {what} (once) ...", file=sys.stderr, flush=True)
    done = subprocess.run(
        [go, *arguments],
        cwd=cwd,
        env=os.environ | {"CGO_ENABLED": "0"} | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NativeClusterError(f"{what} does not build: {done.stderr[-2000:]}")

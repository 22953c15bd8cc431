"""Builds kube-apiserver from its Go module, once, for the tests that run on a real one.

`python -m hack.kube_apiserver` prints its path. A build takes about 5 minutes of two cores and 2 GB of Go's
build cache; the program is 100 MB and stays in $MODELMESH_HOME/cache/tools until `hack/kube-apiserver`
changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from controller.runtime.testing import Binaries, TestEnvironmentError
from local import tools
from local.home import Home

SOURCES = Path(__file__).parent / "kube-apiserver"
_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


def binaries() -> Binaries:
    """Return etcd and kube-apiserver: those of KUBEBUILDER_ASSETS, else built or installed here.

    Raises:
        TestEnvironmentError: there are none and they cannot be had.
    """
    if os.environ.get("KUBEBUILDER_ASSETS"):
        return Binaries.from_environment()
    folder = Home.from_environment().tools
    given = os.environ.get("MODELMESH_ETCD")
    return Binaries(Path(given) if given else tools.ensure(tools.ETCD, folder), ensure(folder))


def ensure(folder: Path) -> Path:
    """Return the program below `folder`, after building it where it is missing.

    Raises:
        TestEnvironmentError: Go is missing or the build fails.
    """
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(SOURCES.iterdir()))).hexdigest()
    target = folder / f"kube-apiserver-{_version()}-{digest[:8]}" / "kube-apiserver"
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _build(target)
    return target


def _version() -> str:
    found = re.search(r"k8s\.io/kubernetes (v\S+)", (SOURCES / "go.mod").read_text())
    if found is None:
        raise TestEnvironmentError(f"{SOURCES / 'go.mod'} does not require k8s.io/kubernetes")
    return found[1]


def _build(target: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise TestEnvironmentError(
            "kube-apiserver is built with Go 1.24 or newer, and there is no go on PATH; install it "
            "(https://go.dev/dl), or set KUBEBUILDER_ASSETS to a folder with etcd and kube-apiserver"
        )
    version = _version()
    major, minor = version.removeprefix("v").split(".")[:2]
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    flags = [f"-X {package}.{key}={value}" for package in _VERSION_PACKAGES for key, value in values.items()]
    draft = target.with_suffix(".new")
    print(f"building kube-apiserver {version} (about 5 minutes, once) ...", file=sys.stderr, flush=True)
    command = [
        go,
        "build",
        "-trimpath",
        "-buildvcs=false",
        "-mod=readonly",
        f"-ldflags=-s -w {' '.join(flags)}",
    ]
    done = subprocess.run(
        [*command, "-o", str(draft), "."],
        cwd=SOURCES,
        env=os.environ | {"CGO_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise TestEnvironmentError(f"kube-apiserver {version} does not build: {done.stderr[-2000:]}")
    draft.rename(target)


if __name__ == "__main__":
    try:
        print(binaries().kube_apiserver)
    except TestEnvironmentError as error:
        sys.exit(str(error))

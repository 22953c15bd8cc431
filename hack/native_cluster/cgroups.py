"""The cgroup below which the kubelet keeps those of its pods, in each hierarchy of the machine."""

from __future__ import annotations

import time
from pathlib import Path

from hack.native_cluster.errors import NativeClusterError

_REMOVE_SECONDS = 10.0


def create(name: str) -> None:
    """Create the cgroup in every hierarchy.

    Raises:
        NativeClusterError: the machine has no cgroups, or refuses.
    """
    hierarchies = _hierarchies()
    if not hierarchies:
        raise NativeClusterError("no cgroup hierarchy is mounted; the kubelet needs them at /sys/fs/cgroup")
    for hierarchy in hierarchies:
        group = hierarchy / name
        try:
            group.mkdir(exist_ok=True)
            for file in ("cpuset.cpus", "cpuset.mems"):
                # In version 1 an empty set admits no process.
                if (group / file).exists() and (hierarchy / file).exists():
                    (group / file).write_text((hierarchy / file).read_text())
            if (group / "cgroup.subtree_control").exists():
                controllers = (group / "cgroup.controllers").read_text().split()
                (group / "cgroup.subtree_control").write_text(" ".join(f"+{each}" for each in controllers))
        except OSError as error:
            raise NativeClusterError(f"cgroup {group} cannot be made: {error.strerror}") from error


def remove(name: str) -> None:
    """Remove the cgroup and those below it, which no process may be in any more.

    Raises:
        NativeClusterError: one stays busy.
    """
    deadline = time.monotonic() + _REMOVE_SECONDS
    for hierarchy in _hierarchies():
        top = hierarchy / name
        groups = [path for path in sorted(top.rglob("*"), reverse=True) if path.is_dir()]
        for group in [*groups, top]:
            while True:
                try:
                    group.rmdir()
                except FileNotFoundError:
                    break
                except OSError as error:
                    if time.monotonic() > deadline:
                        raise NativeClusterError(
                            f"cgroup {group} cannot be removed: {error.strerror}"
                        ) from error
                    time.sleep(0.05)


def _hierarchies() -> list[Path]:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return [Path(folder) for _, folder, kind, *_ in mounts if kind in {"cgroup", "cgroup2"}]

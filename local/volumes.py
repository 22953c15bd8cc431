"""Volumes of a pod as folders of this machine.

A Secret or ConfigMap is laid out as the kubelet does it: the files are links into `..data`, which is itself a
link to a folder of one generation and is replaced by a rename. A reader therefore sees all of a change or
none of it, and a watcher of `..data` hears of it.
"""

from __future__ import annotations

import base64
import binascii
import shutil
import uuid
from typing import TYPE_CHECKING

from local.errors import PodSpecError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from api.core import ConfigMap, KeyToPath, Secret, Volume

_DATA = "..data"
_LONGEST_SOCKET = 107
"""What fits into the system's `sockaddr_un`, less its end."""
_SOCKET_NAME = 16
"""Bytes left for a slash and the socket's name."""


def files_of(source: Secret | ConfigMap) -> dict[str, bytes]:
    """Return the entries of a Secret or ConfigMap as file contents, by key.

    Raises:
        PodSpecError: an entry is not base64.
    """
    plain: Mapping[str, str] = source.data
    encoded: Mapping[str, str] = {}
    if source.kind == "Secret":
        plain, encoded = {}, source.data
    else:
        encoded = getattr(source, "binary_data", {})
    files = {key: text.encode() for key, text in plain.items()}
    for key, text in encoded.items():
        try:
            files[key] = base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise PodSpecError(
                f"{source.kind} {source.name}: entry {key!r} is not base64: {error}"
            ) from error
    return files


def select(files: Mapping[str, bytes], items: Sequence[KeyToPath], origin: str) -> dict[str, bytes]:
    """Return the files that `items` picks, by path; all of them when it picks none.

    Raises:
        PodSpecError: a picked key is missing, or a path leads out of the volume.
    """
    if not items:
        return dict(files)
    chosen = {}
    for item in items:
        if item.key not in files:
            raise PodSpecError(f"{origin} has no entry {item.key!r}")
        if item.path.startswith("/") or ".." in item.path.split("/"):
            raise PodSpecError(f"{origin}: path {item.path!r} must be relative and without '..'")
        chosen[item.path] = files[item.key]
    return chosen


def write_projected(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Make `folder` show exactly `files`, in one step for readers; return whether anything changed."""
    folder.mkdir(parents=True, exist_ok=True)
    current = folder / _DATA
    if current.exists() and _read(current) == dict(files):
        return False
    generation = folder / f"..{uuid.uuid4().hex[:12]}"
    for path, content in files.items():
        file = generation / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o600)
    generation.mkdir(exist_ok=True)
    previous = current.resolve() if current.exists() else None
    draft = folder / "..data.new"
    draft.unlink(missing_ok=True)
    draft.symlink_to(generation.name)
    draft.replace(current)
    wanted = {path.split("/", 1)[0] for path in files}
    for name in wanted:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"{_DATA}/{name}")
    for entry in folder.iterdir():
        if not entry.name.startswith("..") and entry.name not in wanted:
            entry.unlink()
    if previous is not None:
        shutil.rmtree(previous, ignore_errors=True)
    return True


def require_short(folder: Path) -> None:
    """Check that a Unix socket can lie in a folder.

    Raises:
        PodSpecError: its path would be longer than the system allows.
    """
    if (length := len(str(folder).encode()) + _SOCKET_NAME) > _LONGEST_SOCKET:
        raise PodSpecError(
            f"{folder} is too long a path for Unix sockets ({length} bytes with the socket's name, "
            f"{_LONGEST_SOCKET} are allowed): choose a shorter MODELMESH_HOME",
        )


def unsupported(volume: Volume) -> PodSpecError:
    """Return the error for a kind of volume that local mode does not have."""
    kinds = ", ".join(sorted(set(volume.dump()) - {"name"})) or "none"
    return PodSpecError(
        f"volume {volume.name!r} is of a kind that local mode does not have ({kinds}); "
        "it has emptyDir, secret and configMap",
    )


def _read(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder.resolve())): file.read_bytes()
        for file in folder.resolve().rglob("*")
        if file.is_file()
    }

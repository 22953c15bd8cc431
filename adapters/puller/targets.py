"""Which objects of a bucket make up a model, and where each goes on disk: pure rules, no storage involved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.files import secure_join

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Target:
    """A part of a model to pull: `remote` path in the storage, `local` name under the model's folder.

    A `local` that is empty or ends with a slash names a folder to put things into.
    """

    remote: str
    local: str


@dataclass(frozen=True, slots=True)
class RemoteObject:
    """An object as the storage lists it; `size` in bytes."""

    key: str
    size: int


@dataclass(frozen=True, slots=True)
class Download:
    """One object and the file that it becomes."""

    source: RemoteObject
    file: Path


def plan(listed: Iterable[RemoteObject], target: Target, folder: Path) -> list[Download]:
    """The downloads for one target, out of all that the storage listed for its path.

    An object belongs to the target if its key is the path itself or lies below it: `a/model-2` is no part of
    `a/model`. A single object takes the local name; objects below a path keep their names relative to it.
    """
    prefix = target.remote.rstrip("/")
    downloads = []
    for item in _without_folder_markers(listed):
        if item.key == prefix and not target.remote.endswith("/"):
            is_folder = not target.local or target.local.endswith("/")
            relative = item.key.rpartition("/")[2] if is_folder else ""
        elif item.key.startswith(f"{prefix}/"):
            relative = item.key[len(prefix) + 1 :]
        else:
            continue
        downloads.append(Download(item, secure_join(folder, target.local, relative)))
    return downloads


def _without_folder_markers(listed: Iterable[RemoteObject]) -> list[RemoteObject]:
    """Drops the empty objects that consoles make to show a folder; real empty files stay."""
    items = list(listed)
    folders = {item.key[:at] for item in items for at, char in enumerate(item.key) if char == "/"}
    return [item for item in items if item.size or (item.key not in folders and not item.key.endswith("/"))]

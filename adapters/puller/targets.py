"""Which objects make up a model, and where each goes on disk: pure rules, no storage involved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.errors import StorageConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Target:
    """A part of a model to pull: `remote` path in the storage, `local` name under the model's folder.

    A `local` that is empty or ends with a slash names a folder to put things into.
    """

    remote: str
    local: str


@dataclass(frozen=True, slots=True)
class RemoteObject:
    """An object as the storage lists it.

    `size` in bytes, None where the storage does not tell; `version` its ETag, empty where it has none.
    """

    key: str
    size: int | None
    version: str = ""


@dataclass(frozen=True, slots=True)
class Download:
    """One object and the file that it becomes: a path relative to the model's folder, never out of it."""

    source: RemoteObject
    name: str


def plan(listed: Iterable[RemoteObject], target: Target) -> list[Download]:
    """The downloads for one target, out of all that the storage listed for its path.

    An object belongs to the target if its key is the path itself or lies below it: `a/model-2` is no part of
    `a/model`. A single object takes the local name; objects below a path keep their names relative to it.

    Raises:
        StorageConfigError: an object's key cannot be the name of a file.
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
        name = "/".join(part for part in (target.local.rstrip("/"), relative) if part)
        downloads.append(Download(item, _checked(name, item.key)))
    return downloads


def without_collisions(downloads: list[Download]) -> list[Download]:
    """Returns the downloads if no two of them want the same place on disk.

    Raises:
        StorageConfigError: two do: the same file, or one is a file where another needs a folder.
    """
    taken: dict[str, str] = {}
    for download in downloads:
        other = taken.setdefault(download.name, download.source.key)
        if other != download.source.key:
            raise _collision(other, download.source.key)
    for download in downloads:
        name = download.name
        while "/" in name:
            name = name.rpartition("/")[0]
            if name in taken:
                raise _collision(taken[name], download.source.key)
    return downloads


def _checked(name: str, key: str) -> str:
    if "\0" in name or any(part in {"", ".", ".."} for part in name.split("/")):
        raise StorageConfigError(
            f'the object "{key}" cannot be a file: a part of its name is empty, "." or ".."; rename it, or '
            "move it out of the model's path",
        )
    return name


def _collision(one: str, other: str) -> StorageConfigError:
    return StorageConfigError(
        f'the objects "{one}" and "{other}" want the same place on disk; rename one, or move it out of the '
        "model's path",
    )


def _without_folder_markers(listed: Iterable[RemoteObject]) -> list[RemoteObject]:
    """Drops the empty objects that consoles make to show a folder; real empty files stay."""
    items = list(listed)
    folders = {item.key[:at] for item in items for at, char in enumerate(item.key) if char == "/"}
    return [
        item for item in items if item.size != 0 or (item.key not in folders and not item.key.endswith("/"))
    ]

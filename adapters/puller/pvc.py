"""Storage type `pvc`: a claim that is mounted in the pod; a model is linked, not copied."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from adapters.errors import ObjectNotFoundError, StorageConfigError, StorageDeniedError
from adapters.files import disk_size
from adapters.puller.targets import Download, RemoteObject
from adapters.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from adapters.puller.settings import Pod
    from adapters.puller.storage_config import StorageConfig
    from adapters.puller.targets import Target


def open_storage(config: StorageConfig, pod: Pod) -> ClaimStorage:
    """Opens the claim that the setting `name` names.

    Raises:
        StorageConfigError: the name is none of a claim.
    """
    name = config.text("name")
    if "/" in name or "\0" in name or name in {".", ".."}:
        raise StorageConfigError(f'"{name}" is no name of a PVC ({config.describe()})')
    return ClaimStorage(pod.claims / name)


class ClaimStorage:
    """A mounted claim. Nothing outside of its folder is linked, also not by way of links inside it."""

    takes_room = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def find(self, targets: Sequence[Target]) -> list[Download]:
        """Looks the targets up; they have no version, since links are not worth keeping."""
        return [await asyncio.to_thread(self._find, target) for target in targets]

    async def fetch(self, downloads: Sequence[Download], folder: Path) -> None:
        """Links what was found."""
        await in_thread(self._link, downloads, folder)

    def _find(self, target: Target) -> Download:
        if not self._folder.is_dir():
            raise ObjectNotFoundError(
                f"the PVC {self._folder.name} is not mounted in this pod: list it in the storage Secret, or "
                "set allowAnyPVC",
            )
        steps = [step for step in target.remote.split("/") if step]
        if ".." in steps or "\0" in target.remote:
            raise StorageConfigError(f'the path "{target.remote}" leads out of the PVC {self._folder.name}')
        real = self._real(self._folder.joinpath(*steps))
        return Download(RemoteObject(str(real), self._checked_size(real)), target.local.rstrip("/"))

    def _real(self, path: Path) -> Path:
        """Where a path of the claim really leads, through its links."""
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            relative = path.relative_to(self._folder)
            raise ObjectNotFoundError(f"nothing at {relative} of the PVC {self._folder.name}") from error
        if not real.is_relative_to(self._folder.resolve()):
            relative = path.relative_to(self._folder)
            raise StorageDeniedError(f"{relative} of the PVC {self._folder.name} leads out of it by a link")
        return real

    def _checked_size(self, path: Path) -> int:
        """Bytes below a path, whose links have been checked."""
        try:
            for folder, subfolders, names in os.walk(path, onerror=_raise) if path.is_dir() else ():
                for name in (*subfolders, *names):
                    entry = self._folder.resolve() / folder / name
                    if entry.is_symlink():
                        self._confine(entry)
            return disk_size(path)
        except PermissionError as error:
            raise StorageDeniedError(
                f"the PVC {self._folder.name} does not let us read: {error.filename}"
            ) from error

    def _confine(self, link: Path) -> None:
        root = self._folder.resolve()
        if not link.resolve().is_relative_to(root):
            raise StorageDeniedError(
                f"{link.relative_to(root)} of the PVC {self._folder.name} leads out of it by a link"
            )

    def _link(self, downloads: Sequence[Download], folder: Path) -> None:
        for download in downloads:
            link = folder / download.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(download.source.key)


def _raise(error: OSError) -> None:
    raise error

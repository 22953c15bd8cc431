"""The puller: brings a model from storage into a folder of its own, whole or not at all."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from adapters.errors import StorageConfigError
from adapters.files import clear_folder, disk_size, folder_name, remove
from adapters.puller import storage_config
from adapters.puller.storages import open_storage
from adapters.puller.targets import Target

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from adapters.puller.model_key import ModelKey

log = structlog.get_logger(__name__)

# Transfers that run at once in a process; each holds about 1 MiB of memory.
_TRANSFERS = 8
# Unfinished pulls live here, below the models' root, so that the last step is a rename on one file system.
_UNFINISHED = "_pulling"


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model on disk: `path` is its file or folder, `key` the model key as the server may see it."""

    path: Path
    key: ModelKey


class Puller:
    """Pulls models into `ROOT/MODEL/NAME`, where NAME is the last part of the model's path in the storage.

    `root` is the folder that adapter and model server share, `secret` the mounted storage Secret.
    Callers see to it that one model is pulled or removed by one at a time.
    """

    def __init__(self, root: Path, secret: Path) -> None:
        self._root = root
        self._secret = secret
        self._slots = asyncio.Semaphore(_TRANSFERS)

    async def pull(self, model_id: str, path: str, key: ModelKey) -> Pulled:
        """Pulls a model and its schema; what an earlier pull left for this model is replaced.

        Raises:
            StorageConfigError: the settings do not say from where.
            StorageError: the storage failed; nothing is left on disk.
        """
        config = storage_config.resolve(self._secret, key)
        targets = _targets(path, key)
        storage = open_storage(config, self._slots)
        final = self._folder(model_id)
        unfinished = self._root / _UNFINISHED / final.name
        try:
            await asyncio.to_thread(_fresh_folder, unfinished)
            await storage.pull(targets, unfinished)
            await asyncio.to_thread(_replace, unfinished, final)
        finally:
            # Also after a cancellation, so no await here; there is nothing to remove after a success.
            shutil.rmtree(unfinished, ignore_errors=True)
        model, *schema = (final / target.local for target in targets)
        size = await asyncio.to_thread(disk_size, model)
        log.info("pulled model", model=model_id, path=path, bytes=size)
        return Pulled(model, key.pulled(disk_size_bytes=size, schema_path=str(schema[0]) if schema else ""))

    async def size(self, path: str, key: ModelKey) -> int:
        """Bytes that a pull would bring; errors as for `pull`."""
        config = storage_config.resolve(self._secret, key)
        return await open_storage(config, self._slots).size(_targets(path, key))

    def remove(self, model_id: str) -> None:
        """Removes a model's files; OSError where that fails."""
        remove(self._folder(model_id))

    def purge(self, keep: Collection[str] = ()) -> None:
        """Removes the files of all models but those in `keep`, and what a dead process left half pulled.

        Folders whose names start with `_` or `.` belong to others and stay. OSError where removing fails.
        """
        names = {folder_name(model_id) for model_id in keep}
        clear_folder(self._root / _UNFINISHED, keep=names)
        clear_folder(self._root, keep=names, keep_prefixes=("_", "."))

    def _folder(self, model_id: str) -> Path:
        return self._root / folder_name(model_id)


def _targets(path: str, key: ModelKey) -> list[Target]:
    """The model and its schema, under names that cannot clash."""
    if not path.strip("/"):
        raise StorageConfigError("the model has no path in its storage; set storage.path or storageUri")
    name = _last_part(path) or "_model"
    targets = [Target(path.lstrip("/"), name)]
    if key.schema_path:
        schema = _last_part(key.schema_path)
        targets.append(Target(key.schema_path.lstrip("/"), "_schema.json" if schema == name else schema))
    return targets


def _last_part(path: str) -> str:
    name = path.rstrip("/").rpartition("/")[2]
    return "" if name in {".", ".."} else name


def _fresh_folder(folder: Path) -> None:
    remove(folder)
    folder.mkdir(parents=True)


def _replace(source: Path, target: Path) -> None:
    remove(target)
    source.rename(target)

"""The puller: brings a model from storage into a folder of its own, whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

import msgspec
import structlog

from adapters.errors import DiskFullError, StorageConfigError, StorageKeyError
from adapters.files import clear_folder, disk_size, folder_name, remove
from adapters.puller import storage_config
from adapters.puller.content import Contents
from adapters.puller.download import disk_failure
from adapters.puller.settings import Pod
from adapters.puller.storage_types import find_type
from adapters.puller.targets import Target
from adapters.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from adapters.puller.model_key import ModelKey
    from adapters.puller.settings import PullerSettings
    from adapters.puller.storage_config import StorageConfig
    from adapters.puller.storage_types import Storage
    from adapters.puller.targets import Download

log = structlog.get_logger(__name__)

# Unfinished pulls live here, below the models' root, so that the last step is a rename on one file system.
_UNFINISHED = "_pulling"
# What was pulled before, for the next load of the same version.
_CONTENTS = "_content"
# Clients that are kept open, each with its connections and tokens.
_OPEN_STORAGES = 32
# A storage key that is not there yet is waited for: whoever adds it adds the model at the same time.
_KEY_PATIENCE_S, _KEY_POLL_S = 5.0, 0.25


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model on disk: `path` is its file or folder, `key` the model key as the server may see it."""

    path: Path
    key: ModelKey


class Puller:
    """Pulls models into `ROOT/MODEL/NAME`, where NAME is the last part of the model's path in the storage.

    Callers see to it that one model is pulled or removed by one at a time. What an earlier process left half
    pulled is removed at once. `key_patience_s` is how long a storage key that the Secret lacks is waited for.
    """

    def __init__(self, settings: PullerSettings, *, key_patience_s: float = _KEY_PATIENCE_S) -> None:
        self._root = settings.root
        self._secret = settings.secret
        self._pod = Pod.of(settings)
        self._patience_s = key_patience_s
        self._storages: OrderedDict[tuple[str | None, bytes], Storage] = OrderedDict()
        clear_folder(self._root / _UNFINISHED)
        if not settings.cache_bytes:
            remove(self._root / _CONTENTS)
        self._contents = Contents(self._root / _CONTENTS, settings.cache_bytes)

    async def pull(self, model_id: str, path: str, key: ModelKey) -> Pulled:
        """Pulls a model and its schema; what an earlier pull left for this model is replaced.

        Raises:
            StorageConfigError: the settings do not say from where.
            DiskFullError: the model does not fit on the volume.
            StorageError: the storage failed; nothing is left on disk.
        """
        targets = _targets(path, key)
        config = await self._config(key)
        storage = self._storage(config)
        downloads = await storage.find(targets)
        fingerprint = _fingerprint(config, downloads)
        final = self._folder(model_id)
        unfinished = self._root / _UNFINISHED / final.name
        try:
            await in_thread(_fresh_folder, unfinished)
            kept = bool(fingerprint) and await in_thread(
                self._contents.link, fingerprint, final.name, unfinished
            )
            if not kept:
                await self._fetch(storage, downloads, unfinished)
                if fingerprint:
                    await in_thread(self._contents.keep, fingerprint, final.name, unfinished)
            await in_thread(_replace, unfinished, final)
        except BaseException as error:
            self._contents.release({final.name})
            if isinstance(error, OSError):
                raise disk_failure(error, final.name) from error
            raise
        finally:
            # Also after a cancellation, so no await here; there is nothing to remove after a success.
            shutil.rmtree(unfinished, ignore_errors=True)
        model, *schema = (final / target.local for target in targets)
        size = await asyncio.to_thread(disk_size, model)
        log.info("pulled model", model=model_id, path=path, bytes=size, kept=kept)
        return Pulled(model, key.pulled(disk_size_bytes=size, schema_path=str(schema[0]) if schema else ""))

    async def size(self, path: str, key: ModelKey) -> int:
        """Bytes that a pull would bring, the schema left out where it is known; errors as for `pull`."""
        targets = _targets(path, key)
        downloads = await self._storage(await self._config(key)).find(targets)
        return sum(download.source.size or 0 for download in downloads)

    async def _fetch(self, storage: Storage, downloads: Sequence[Download], folder: Path) -> None:
        needed = sum(download.source.size or 0 for download in downloads) if storage.takes_room else 0
        await asyncio.to_thread(self._contents.make_room, needed)
        free = await asyncio.to_thread(self._contents.free_disk, needed)
        if free < needed:
            raise DiskFullError(
                f"the model volume is full: the model has {needed} bytes, and {free} are free; the volume's "
                "size limit follows the memory limits of the runtime's containers",
            )
        await storage.fetch(downloads, folder)

    async def _config(self, key: ModelKey) -> StorageConfig:
        """The settings, read afresh; a key that the Secret lacks may be on its way into the pod."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience_s
        while True:
            try:
                return await asyncio.to_thread(storage_config.resolve, self._secret, key)
            except StorageKeyError:
                if loop.time() >= deadline:
                    raise
            await asyncio.sleep(_KEY_POLL_S)

    def _storage(self, config: StorageConfig) -> Storage:
        """The storage of these settings; other settings are another one, in all their parts."""
        identity = (config.entry, msgspec.json.encode(config.values, order="deterministic"))
        storage = self._storages.pop(identity, None)
        if storage is None:
            storage = find_type(config.text("type"), config.describe()).open(config, self._pod)
        self._storages[identity] = storage
        if len(self._storages) > _OPEN_STORAGES:
            self._storages.popitem(last=False)
        return storage

    def path(self, model_id: str, path: str) -> Path:
        """Where a model of this path in its storage is, once it is pulled."""
        return self._folder(model_id) / _local_name(path)

    def models(self) -> list[str]:
        """Ids of the models that have files; one too long for a file name is told by the file's name."""
        return [
            unquote(entry.name) for entry in self._root.iterdir() if not entry.name.startswith(("_", "."))
        ]

    def remove(self, model_id: str) -> None:
        """Removes a model's files; OSError where that fails. Its content may be kept for a later load."""
        folder = self._folder(model_id)
        remove(folder)
        self._contents.release({folder.name})
        self._contents.make_room(0)

    def purge(self, keep: Collection[str] = ()) -> None:
        """Removes the files of all models but those in `keep`, and what a dead process left half pulled.

        Folders whose names start with `_` or `.` belong to others and stay. OSError where removing fails.
        """
        names = {folder_name(model_id) for model_id in keep}
        clear_folder(self._root / _UNFINISHED, keep=names)
        clear_folder(self._root, keep=names, keep_prefixes=("_", "."))
        self._contents.release_all_but(names)

    def _folder(self, model_id: str) -> Path:
        return self._root / folder_name(model_id)


def _targets(path: str, key: ModelKey) -> list[Target]:
    """The model and its schema, under names that cannot clash."""
    if not path.strip("/"):
        raise StorageConfigError(
            "Predictor Storage field missing: the model has no path; set storage.path or storageUri"
        )
    name = _local_name(path)
    targets = [Target(path.lstrip("/"), name)]
    if key.schema_path:
        schema = _last_part(key.schema_path)
        targets.append(Target(key.schema_path.lstrip("/"), "_schema.json" if schema == name else schema))
    return targets


def _local_name(path: str) -> str:
    return _last_part(path) or "_model"


def _last_part(path: str) -> str:
    name = path.rstrip("/").rpartition("/")[2]
    return "" if name in {".", ".."} else name


def _fingerprint(config: StorageConfig, downloads: Sequence[Download]) -> str:
    """Names what a pull with these settings would bring; empty where the storage tells no versions.

    The settings are in it with their credentials: content is for those who could fetch it themselves.
    """
    if not all(download.source.version for download in downloads):
        return ""
    what = sorted((item.name, item.source.key, item.source.size, item.source.version) for item in downloads)
    text = msgspec.json.encode((config.entry, config.values, what), order="deterministic")
    return hashlib.sha256(text).hexdigest()


def _fresh_folder(folder: Path) -> None:
    remove(folder)
    folder.mkdir(parents=True)


def _replace(source: Path, target: Path) -> None:
    remove(target)
    source.rename(target)

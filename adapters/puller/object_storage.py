"""Pulling from whatever keeps objects under keys: listing, bounded parallel downloads, plain errors."""

from __future__ import annotations

import asyncio
import errno
import re
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from adapters.errors import (
    DiskFullError,
    ObjectNotFoundError,
    StorageConfigError,
    StorageDeniedError,
    StorageError,
    StorageUnavailableError,
)
from adapters.puller.targets import Download, RemoteObject, plan

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from obstore.store import ObjectStore

    from adapters.puller.storage_config import StorageConfig
    from adapters.puller.targets import Target

# Bytes a download holds in memory before they go to the file.
_CHUNK_BYTES = 1 << 20
# Downloads of one file that end early are begun again this often; the requests have retries of their own.
_ATTEMPTS = 3

_HTTP_STATUS = re.compile(r"status code: (\d{3})")
_XML_ERROR = re.compile(r"<Code>([^<]*)</Code>\s*<Message>([^<]*)</Message>", re.DOTALL)
_CAUSE = re.compile(r'(?:message: |InvalidCertificate\(|error: )"?([^")\n]+)')
_DENIED, _MISSING, _CLIENT_ERRORS, _TOO_MANY = (401, 403), 404, range(300, 500), 429


class ObjectStorage:
    """A bucket (or container) of a store that `obstore` speaks to; `address` is how messages call it."""

    def __init__(
        self, store: ObjectStore, address: str, config: StorageConfig, slots: asyncio.Semaphore
    ) -> None:
        self._store = store
        self._address = address
        self._config = config
        self._slots = slots

    async def pull(self, targets: Sequence[Target], folder: Path) -> None:
        """Downloads all objects of all targets into `folder`, as many at once as there are slots.

        Raises:
            ObjectNotFoundError: a target has no object.
            StorageConfigError: a target's path cannot be one of an object.
            StorageError: any other failure, by kind.
        """
        downloads = [download for target in targets for download in await self._plan(target, folder)]
        try:
            async with asyncio.TaskGroup() as group:
                for download in downloads:
                    group.create_task(self._download(download))
        except ExceptionGroup as failures:
            # The first to fail ended the others; it is the cause.
            raise failures.exceptions[0] from None

    async def size(self, targets: Sequence[Target]) -> int:
        """Bytes of all objects of all targets; errors as for `pull`."""
        sizes = [item.size for target in targets for item in await self._find(target)]
        return sum(sizes)

    async def _plan(self, target: Target, folder: Path) -> list[Download]:
        return plan(await self._find(target), target, folder)

    async def _find(self, target: Target) -> list[RemoteObject]:
        path = target.remote.strip("/")
        where = f"{self._address}/{path}"
        try:
            found = await self._below(path, where)
            if not found and not target.remote.endswith("/"):
                found = await self._single(path, where)
        except ValueError as error:
            raise StorageConfigError(
                f'"{path}" is no path of an object: its parts may not be empty, "." or "..", nor contain '
                "control characters",
            ) from error
        if not found:
            raise ObjectNotFoundError(f"no object at {where} ({self._config.describe()})")
        return found

    async def _below(self, path: str, where: str) -> list[RemoteObject]:
        found = []
        try:
            async for page in obstore.list(self._store, prefix=path):
                found += [RemoteObject(item["path"], item["size"]) for item in page]
        except BaseError as error:
            failure = self._failure(error, f"listing {where}")
            # Who may read one object need not be allowed to list the bucket.
            if isinstance(failure, StorageDeniedError) and (
                single := await self._single(path, where, denied=True)
            ):
                return single
            raise failure from error
        return found

    async def _single(self, path: str, where: str, *, denied: bool = False) -> list[RemoteObject]:
        try:
            item = await obstore.head_async(self._store, path)
        except FileNotFoundError:
            return []
        except BaseError as error:
            if denied:
                return []
            raise self._failure(error, f"looking for {where}") from error
        return [RemoteObject(item["path"], item["size"])]

    async def _download(self, download: Download) -> None:
        where = f"{self._address}/{download.source.key}"
        async with self._slots:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    await self._fetch(download)
                except FileNotFoundError as error:
                    raise ObjectNotFoundError(f"{where} went away during the pull") from error
                except BaseError as error:
                    failure = self._failure(error, f"reading {where}")
                except OSError as error:
                    raise _disk_failure(error, download.file) from error
                else:
                    received = download.file.stat().st_size
                    if received == download.source.size:
                        return
                    wanted = download.source.size
                    failure = StorageUnavailableError(f"{where} ended after {received} of {wanted} bytes")
                if attempt == _ATTEMPTS or not isinstance(failure, StorageUnavailableError):
                    raise failure

    async def _fetch(self, download: Download) -> None:
        result = await obstore.get_async(self._store, download.source.key)
        download.file.parent.mkdir(parents=True, exist_ok=True)
        with download.file.open("wb") as file:
            async for chunk in result.stream(min_chunk_size=_CHUNK_BYTES):
                await asyncio.to_thread(file.write, chunk)

    def _failure(self, error: BaseError, doing: str) -> StorageError | StorageConfigError:
        """Names a failure by its kind; the store's own text is for programmers and pages long."""
        text = str(error)
        code = _HTTP_STATUS.search(text)
        status = int(code[1]) if code else 0
        detail = _XML_ERROR.search(text)
        cause = _CAUSE.search(text.partition("Debug source:")[2])
        reason = (
            f"{detail[1]}: {detail[2]}"
            if detail
            else f"HTTP status {status}"
            if status
            else cause[1]
            if cause
            else text.partition("\n")[0]
        )
        message = f"{doing} failed ({self._config.describe()}): {reason}"
        if status in _DENIED or isinstance(error, PermissionDeniedError | UnauthenticatedError):
            return StorageDeniedError(message)
        if status == _MISSING:
            return ObjectNotFoundError(message)
        if status in _CLIENT_ERRORS and status != _TOO_MANY:
            return StorageConfigError(message)
        return StorageUnavailableError(message)


def _disk_failure(error: OSError, file: Path) -> StorageError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFullError(f"the model volume is full: writing {file.name} failed: {error.strerror}")
    return StorageError(f"writing {file.name} failed: {error}")

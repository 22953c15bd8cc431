"""Pulling from whatever keeps objects under keys and `obstore` speaks to: S3, GCS, Azure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import obstore
import structlog
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from adapters.errors import (
    ObjectNotFoundError,
    StorageConfigError,
    StorageDeniedError,
    StorageError,
    StorageUnavailableError,
)
from adapters.puller.download import download_all
from adapters.puller.targets import RemoteObject, plan, without_collisions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from obstore import GetOptions
    from obstore.store import ObjectStore

    from adapters.puller.settings import Pod
    from adapters.puller.storage_config import StorageConfig
    from adapters.puller.targets import Download, Target

log = structlog.get_logger(__name__)

# Bytes a download holds in memory before they go to the file.
_CHUNK_BYTES = 256 << 10

_MD5_TAG = re.compile(r'"?([0-9a-f]{32})"?')
_ILLEGAL_KEY = re.compile(r'Path "((?:[^"\\]|\\.)*)"')
_HTTP_STATUS = re.compile(r"status code: (\d{3})")
_XML_ERROR = re.compile(r"<Code>([^<]*)</Code>\s*<Message>([^<]*)</Message>", re.DOTALL)
_CAUSE = re.compile(r'(?:message: |InvalidCertificate\(|error: )"?([^")\n]+)')
_DENIED, _MISSING, _CLIENT_ERRORS, _TOO_MANY = (401, 403), 404, range(300, 500), 429


class ObjectStorage:
    """A bucket (or container); `address` is how messages call it.

    `digests` says whether ETags that look like an MD5 are the content's: those of S3 and GCS are, for objects
    that were uploaded whole and are not encrypted with a key of the customer.
    """

    has_ranges = True
    takes_room = True

    def __init__(
        self, store: ObjectStore, address: str, config: StorageConfig, pod: Pod, *, digests: bool
    ) -> None:
        self._store = store
        self._address = address
        self._config = config
        self._pod = pod
        self._digests = digests

    async def find(self, targets: Sequence[Target]) -> list[Download]:
        """Lists the objects of all targets.

        Raises:
            ObjectNotFoundError: a target has no object.
            StorageConfigError: a path cannot be one of an object, or a key cannot be a file.
            StorageError: any other failure, by kind.
        """
        async with self._pod.transfers:
            found = [download for target in targets for download in await self._find(target)]
        return without_collisions(found)

    async def fetch(self, downloads: Sequence[Download], folder: Path) -> None:
        """Downloads what was found."""
        await download_all(self, downloads, folder, self._pod)

    async def read(self, item: RemoteObject, start: int, end: int | None) -> AsyncIterator[bytes]:
        """Streams a range of the version that was found."""
        if item.size == 0:
            return
        options: GetOptions = {}
        if item.version:
            options["if_match"] = item.version
        if (start, end) != (0, item.size):
            options["range"] = (start, end or 0)
        try:
            result = await obstore.get_async(self._store, item.key, options=options)
            if end is not None and end - start <= _CHUNK_BYTES:
                yield bytes(await result.bytes_async())
                return
            async for chunk in result.stream(min_chunk_size=_CHUNK_BYTES):
                yield chunk
        except FileNotFoundError as error:
            raise ObjectNotFoundError(f"{self.describe(item)} went away during the pull") from error
        except PreconditionError as error:
            raise StorageError(f"{self.describe(item)} was replaced during the pull; load again") from error
        except BaseError as error:
            raise self._failure(error, f"reading {self.describe(item)}") from error

    def describe(self, item: RemoteObject) -> str:
        """The object's address, for messages."""
        return f"{self._address}/{item.key}"

    def digest(self, item: RemoteObject) -> tuple[str, str] | None:
        """The MD5 that an ETag is, where it may be one."""
        tag = _MD5_TAG.fullmatch(item.version) if self._digests else None
        return ("md5", tag[1]) if tag else None

    def distrust_digests(self, item: RemoteObject) -> bool:
        """Where the store encrypts with a customer's key, ETags only look like digests: believe none."""
        log.info("ETags of this storage are no checksums", storage=self._address, object=item.key)
        self._digests = False
        return True

    async def _find(self, target: Target) -> list[Download]:
        path = target.remote.strip("/")
        where = f"{self._address}/{path}"
        try:
            found = plan(await self._below(path, where), target)
            if not found and not target.remote.endswith("/"):
                found = plan(await self._single(path, where), target)
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
                found += [RemoteObject(item["path"], item["size"], item["e_tag"] or "") for item in page]
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
        return [RemoteObject(item["path"], item["size"], item["e_tag"] or "")]

    def _failure(self, error: BaseError, doing: str) -> StorageError | StorageConfigError:
        """Names a failure by its kind; the store's own text is for programmers and pages long."""
        text = str(error)
        if isinstance(error, InvalidPathError):
            key = _ILLEGAL_KEY.search(text)
            return StorageConfigError(
                f'{doing} failed: the object "{key[1] if key else "?"}" cannot be a file: a part of its key '
                'is empty, "." or ".."; rename it, or move it out of the model\'s path',
            )
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

"""Bringing objects to disk: parts in parallel, within the pod's bounds, resumed after a cut, verified.

Small objects are read whole; a large one is split into ranges that are streamed side by side into one file.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import hmac
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from adapters.errors import CorruptObjectError, DiskFullError, StorageError, StorageUnavailableError
from adapters.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from adapters.puller.settings import Pod
    from adapters.puller.targets import Download, RemoteObject

log = structlog.get_logger(__name__)

# Read at once into memory; as many as there are transfers can be there together.
_SMALL_BYTES = 256 << 10
# One connection to a store in a cloud brings some 50 to 100 MB/s, so a larger object takes several.
_PART_BYTES = 32 << 20
# How often a part, or a question, is begun again without coming further than this, and the pauses between.
ATTEMPTS = 4
_PROGRESS_BYTES = 1 << 20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 3.0


def pause_s(failed: int) -> float:
    """Seconds before the next attempt, after so many that failed."""
    return min(_FIRST_PAUSE_S * 2.0**failed, _LONGEST_PAUSE_S)


class Source(Protocol):
    """Where objects come from."""

    @property
    def has_ranges(self) -> bool:
        """Whether reading can begin elsewhere than at the start."""

    def read(self, item: RemoteObject, start: int, end: int | None) -> AsyncIterator[bytes]:
        """Streams the bytes from `start` up to `end` (None: to its end) of the version that was found.

        Raises:
            StorageUnavailableError: it may work when tried again.
            StorageError: it will not.
        """

    def describe(self, item: RemoteObject) -> str:
        """The object's address, for messages."""

    def digest(self, item: RemoteObject) -> tuple[str, str] | None:
        """Name of a hash and the hexadecimal value that the storage gives for the content, where it does."""

    def distrust_digests(self, item: RemoteObject) -> bool:
        """Asked when two readings agree with each other and not with the digest: whether to believe them."""


@dataclass(slots=True)
class _File:
    download: Download
    path: Path
    parts_left: int
    content: bytearray | None = None
    """What a small object has, so that it is written and hashed in one go."""


@dataclass(frozen=True, slots=True)
class _Part:
    file: _File
    start: int
    end: int | None


async def download_all(source: Source, downloads: Sequence[Download], folder: Path, pod: Pod) -> None:
    """Brings all downloads into `folder`; the first failure ends the others.

    Raises:
        DiskFullError: the volume has no room.
        CorruptObjectError: an object is not what the storage's checksum says.
        StorageError: anything else, by kind.
    """
    work = _parts(source, downloads, folder)
    workers = min(
        pod.width, len(downloads) + sum((item.source.size or 0) // _PART_BYTES for item in downloads)
    )
    downloader = _Downloader(source, pod)
    try:
        await in_thread(_make_folders, {(folder / item.name).parent for item in downloads})
        async with asyncio.TaskGroup() as group:
            for _ in range(max(workers, 1)):
                group.create_task(downloader.work(work))
    except OSError as error:
        raise disk_failure(error, folder.name) from error
    except ExceptionGroup as failures:
        # The first to fail ended the others; it is the cause.
        raise failures.exceptions[0] from None


def _parts(source: Source, downloads: Sequence[Download], folder: Path) -> Iterator[_Part]:
    """All parts, those of small objects first: they wait for latency, large ones for bandwidth."""
    for download in sorted(downloads, key=lambda item: item.source.size or 0):
        size = download.source.size
        path = folder / download.name
        if size is None or not source.has_ranges or size <= _PART_BYTES:
            yield _Part(_File(download, path, 1), 0, size)
            continue
        starts = range(0, size, _PART_BYTES)
        file = _File(download, path, len(starts))
        for start in starts:
            yield _Part(file, start, min(start + _PART_BYTES, size))


class _Downloader:
    def __init__(self, source: Source, pod: Pod) -> None:
        self._source = source
        self._pod = pod

    async def work(self, parts: Iterator[_Part]) -> None:
        """Takes parts until there are none; whoever finishes a file verifies it."""
        for part in parts:
            try:
                await self._bring(part)
                part.file.parts_left -= 1
                if part.file.parts_left == 0:
                    await self._finish(part.file)
            except OSError as error:
                raise disk_failure(error, part.file.path.name) from error

    async def _bring(self, part: _Part) -> None:
        if part.end is not None and part.end - part.start <= _SMALL_BYTES:
            content = part.file.content = bytearray()

            async def keep(chunk: bytes, position: int) -> None:
                content[position:] = chunk

            async with self._pod.transfers:
                await self._stream(part, keep)
            return
        async with self._pod.streams, self._pod.transfers:
            fd = _open(part.file.path)

            async def write(chunk: bytes, position: int) -> None:
                await in_thread(_write, fd, chunk, position)

            try:
                await self._stream(part, write)
            finally:
                os.close(fd)

    async def _stream(self, part: _Part, write: Callable[[bytes, int], Awaitable[None]]) -> None:
        """Writes a part, going on after a cut where it ended, as long as each attempt comes further."""
        item = part.file.download.source
        furthest, failed = part.start, 0
        while True:
            position = furthest if self._source.has_ranges else part.start
            try:
                async for chunk in self._source.read(item, position, part.end):
                    await write(chunk, position)
                    position += len(chunk)
            except StorageUnavailableError as error:
                failure = error
            else:
                if part.end is None or position == part.end:
                    return
                where = self._source.describe(item)
                failure = StorageUnavailableError(
                    f"{where} ended at byte {position}, and {part.end} were announced"
                )
            failed = 1 if position - furthest >= _PROGRESS_BYTES else failed + 1
            furthest = max(furthest, position)
            if failed == ATTEMPTS:
                raise failure
            log.info("download is begun again", object=item.key, at=furthest, reason=str(failure))
            await asyncio.sleep(pause_s(failed))

    async def _finish(self, file: _File) -> None:
        """Compares a whole file with the storage's checksum, and reads it once more where it differs."""
        item = file.download.source
        name, wanted = self._source.digest(item) or ("", "")
        first = await in_thread(_save, file, name)
        if hmac.compare_digest(first, wanted):
            return
        await self._bring(_Part(file, 0, item.size))
        again = await in_thread(_save, file, name)
        if hmac.compare_digest(again, wanted) or (again == first and self._source.distrust_digests(item)):
            return
        raise CorruptObjectError(
            f"{self._source.describe(item)} is corrupt: its {name} is {again}, and the storage says {wanted}"
        )


def _make_folders(folders: Iterable[Path]) -> None:
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _write(fd: int, chunk: bytes | bytearray, position: int) -> None:
    rest = memoryview(chunk)
    while rest:
        written = os.pwrite(fd, rest, position)
        rest = rest[written:]
        position += written


def _save(file: _File, name: str) -> str:
    """Writes what is still in memory; returns the hash of that name, empty for none."""
    content, file.content = file.content, None
    if content is not None:
        fd = _open(file.path)
        try:
            _write(fd, content, 0)
        finally:
            os.close(fd)
    if not name:
        return ""
    if content is not None:
        return hashlib.new(name, content, usedforsecurity=False).hexdigest()
    with file.path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(name, usedforsecurity=False)).hexdigest()


def disk_failure(error: OSError, name: str) -> StorageError:
    """Names a failure to write a file by its kind."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFullError(f"the model volume is full: writing {name} failed: {error.strerror}")
    return StorageError(f"writing {name} failed: {error}")

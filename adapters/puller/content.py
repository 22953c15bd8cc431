"""What was pulled before, kept on disk for the next load of the same version.

Contents lie in a folder of their own, each under its fingerprint, and a model's files are hard links to them:
a model can be removed or added to without harm to the content, and two models of the same content share it.
Methods block; call them in a thread.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from adapters.files import disk_size, remove

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

log = structlog.get_logger(__name__)

_DRAFT = ".draft-"
# A server that writes into its models must not change what others get.
_READ_ONLY = 0o444


@dataclass(slots=True)
class _Content:
    size: int
    used: float
    models: set[str]


class Contents:
    """The contents in a folder, at most `limit` bytes of them; those used longest ago go first.

    Contents of models that are on disk now count, but are not removed: that would free nothing.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._lock = threading.Lock()
        self._clock = 0.0
        self._contents = self._found() if limit else {}

    def link(self, fingerprint: str, model: str, target: Path) -> bool:
        """Makes `target`, which is an empty folder, a copy of a content by links; False if it is not kept."""
        with self._lock:
            content = self._contents.get(fingerprint)
            if content is None:
                return False
            self._use(fingerprint, model)
        try:
            _link_tree(self._folder / fingerprint, target)
            os.utime(self._folder / fingerprint)
        except OSError as error:
            log.warning("a kept model cannot be used", reason=str(error))
            self._drop(fingerprint)
            remove(target)
            target.mkdir()
            return False
        return True

    def keep(self, fingerprint: str, model: str, source: Path) -> None:
        """Keeps what lies in `source` by links, where the bound allows it."""
        size = disk_size(source)
        if not 0 < self._limit >= size:
            return
        self.make_room(size)
        draft = self._folder / f"{_DRAFT}{fingerprint}-{threading.get_ident()}"
        try:
            draft.mkdir(parents=True)
            _link_tree(source, draft)
            with self._lock:
                if fingerprint not in self._contents:
                    draft.rename(self._folder / fingerprint)
                    self._contents[fingerprint] = _Content(size, 0, set())
                self._use(fingerprint, model)
        except OSError as error:
            # A file system without hard links, or a full one: the model itself is there.
            log.warning("a model is not kept for later", reason=str(error))
        finally:
            remove(draft)

    def make_room(self, size: int) -> None:
        """Removes contents until `size` more bytes stay within the bound, as far as any can go."""
        self._evict(lambda kept: kept + size <= self._limit)

    def free_disk(self, needed: int) -> int:
        """Removes contents until `needed` bytes are free on the volume; returns how many are, then."""
        self._evict(lambda _kept: _free(self._folder.parent) >= needed)
        return _free(self._folder.parent)

    def release(self, models: Collection[str]) -> None:
        """Says that the files of these models are gone; their contents stay until there is need for room."""
        with self._lock:
            for content in self._contents.values():
                content.models.difference_update(models)

    def release_all_but(self, models: Collection[str]) -> None:
        """Says that no model's files are left but those of `models`."""
        with self._lock:
            for content in self._contents.values():
                content.models.intersection_update(models)

    def _use(self, fingerprint: str, model: str) -> None:
        for content in self._contents.values():
            content.models.discard(model)
        self._contents[fingerprint].models.add(model)
        self._contents[fingerprint].used = self._now()

    def _evict(self, enough: Callable[[int], bool]) -> None:
        while True:
            with self._lock:
                idle = [(item.used, name) for name, item in self._contents.items() if not item.models]
                if not idle or enough(sum(item.size for item in self._contents.values())):
                    return
                fingerprint = min(idle)[1]
            self._drop(fingerprint)

    def _drop(self, fingerprint: str) -> None:
        """Forgets a content, then removes it: by another name first, so that no part of it is ever found."""
        with self._lock:
            self._contents.pop(fingerprint, None)
            gone = self._folder / f"{_DRAFT}{fingerprint}-gone"
            try:
                remove(gone)
                (self._folder / fingerprint).rename(gone)
            except OSError as error:
                log.warning("a kept model cannot be removed", reason=str(error))
                return
        remove(gone)

    def _found(self) -> dict[str, _Content]:
        """What an earlier process kept, and removes what it left unfinished."""
        found = {}
        for path in list(self._folder.iterdir()) if self._folder.is_dir() else []:
            if path.name.startswith(_DRAFT):
                remove(path)
            else:
                found[path.name] = _Content(disk_size(path), path.stat().st_mtime, set())
        self._clock = max((content.used for content in found.values()), default=0.0)
        return found

    def _now(self) -> float:
        """A time that only grows, after all that were found."""
        self._clock += 1
        return self._clock


def _link_tree(source: Path, target: Path) -> None:
    for folder, subfolders, names in os.walk(source):
        into = target / os.path.relpath(folder, source)
        for name in subfolders:
            (into / name).mkdir()
        for name in names:
            file = os.path.join(folder, name)  # noqa: PTH118 - ten thousand of them; Path costs more than the link
            os.chmod(file, _READ_ONLY)  # noqa: PTH101 - as above
            os.link(file, into / name)


def _free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize

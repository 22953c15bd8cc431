"""The storage types that the puller knows, and how a third party adds one.

A storage type is a function that opens a storage with the settings of one pull. Ours are listed here and
imported only when a model needs them; an installed package adds its own as an entry point in the group
`modelmesh.storages`.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol

from adapters.errors import StorageConfigError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from pathlib import Path

    from adapters.puller.storage_config import StorageConfig
    from adapters.puller.targets import Target

ENTRY_POINT_GROUP = "modelmesh.storages"

_BUILT_IN = {"s3": "adapters.puller.s3:open_storage"}


class Storage(Protocol):
    """One storage, opened with the settings of one pull."""

    async def pull(self, targets: Sequence[Target], folder: Path) -> None:
        """Brings all targets into `folder`, or raises a StorageError; a cancelled pull stops at once."""

    async def size(self, targets: Sequence[Target]) -> int:
        """Bytes that `pull` would bring, without bringing them."""


class Open(Protocol):
    """What a storage type provides: `slots` bounds the transfers that run at once in the whole process."""

    def __call__(self, config: StorageConfig, slots: asyncio.Semaphore) -> Storage:
        """Opens the storage; it need not be reached yet."""


def open_storage(config: StorageConfig, slots: asyncio.Semaphore) -> Storage:
    """Opens the storage that the settings name by their `type`.

    Raises:
        StorageConfigError: unknown type, or settings that the type cannot use.
    """
    kind = config.text("type")
    installed = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if kind in _BUILT_IN:
        module, _, function = _BUILT_IN[kind].partition(":")
        opener: Open = getattr(importlib.import_module(module), function)
    elif kind in installed:
        opener = installed[kind].load()
    else:
        known = ", ".join(sorted({*_BUILT_IN, *installed}))
        raise StorageConfigError(f'unknown storage type "{kind}" ({config.describe()}); known types: {known}')
    return opener(config, slots)

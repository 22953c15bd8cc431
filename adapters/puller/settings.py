"""Settings of the puller, and what all pulls of a pod share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapters.environment import Reader

# Transfers at once: enough to hide the latency of many small objects from a store that is far away.
_TRANSFERS = 16
# Of these, streams of large objects, which hold a chunk in memory each and need bandwidth, not company.
_STREAMS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PullerSettings:
    """What the puller is told about its pod.

    `root` is the folder that it shares with the model server, `secret` the mounted storage Secret, `claims`
    the folder that has a folder for each mounted PVC. `transfers` bounds the requests to storages at once.
    `cache_bytes` bounds what is kept of models on disk, loaded ones included; 0 keeps nothing.
    """

    root: Path
    secret: Path
    claims: Path = Path("/pvc_mounts")
    transfers: int = _TRANSFERS
    cache_bytes: int = 0

    @classmethod
    def from_environment(cls, read: Reader, *, cache_bytes: int) -> PullerSettings:
        """Reads the variables; `cache_bytes` is the default of the cache's bound."""
        environment = read.environment
        return cls(
            root=Path(environment.get("ROOT_MODEL_DIR") or "/models"),
            secret=Path(environment.get("STORAGE_CONFIG_DIR") or "/storage-config"),
            claims=Path(environment.get("PVC_MOUNTS_DIR") or "/pvc_mounts"),
            transfers=read.number("PULL_CONCURRENCY", _TRANSFERS, least=1, most=256),
            cache_bytes=read.number("MODEL_CACHE_BYTES", cache_bytes, least=0),
        )


@dataclass(frozen=True, slots=True)
class Pod:
    """Shared by all pulls of a pod: the bounds on its transfers, and where PVCs are mounted.

    A transfer takes one of `transfers`; one of a large object takes one of `streams` before. `width` is how
    many tasks can be of use to one pull.
    """

    claims: Path = Path("/pvc_mounts")
    width: int = _TRANSFERS
    transfers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_TRANSFERS))
    streams: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_STREAMS))

    @classmethod
    def of(cls, settings: PullerSettings) -> Pod:
        """The bounds that the settings ask for."""
        width = settings.transfers
        streams = asyncio.Semaphore(min(width, _STREAMS))
        return cls(settings.claims, width, asyncio.Semaphore(width), streams)

"""The storage types that the puller knows, with the settings that each has.

The settings of a storage are an entry of the storage Secret (a JSON object with its `type`), the parameters
of a model, or both. An installed package adds a type as an entry point in the group `modelmesh.storages` that
names a `StorageType`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from adapters.errors import StorageConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from adapters.puller.settings import Pod
    from adapters.puller.storage_config import StorageConfig
    from adapters.puller.targets import Download, Target

ENTRY_POINT_GROUP = "modelmesh.storages"

JSON = dict[str, Any]

MayOverride = Callable[[JSON, str], bool]
"""Whether a model's parameter may replace a setting: the Secret's entry, and the parameter's value."""


class Storage(Protocol):
    """One storage, opened with the settings of a model."""

    @property
    def takes_room(self) -> bool:
        """Whether a fetch fills the model volume with the bytes of what was found."""

    async def find(self, targets: Sequence[Target]) -> list[Download]:
        """Looks the targets up: what there is to bring, with sizes and versions.

        Raises:
            ObjectNotFoundError: a target has nothing.
            StorageError: the storage cannot be asked.
        """

    async def fetch(self, downloads: Sequence[Download], folder: Path) -> None:
        """Brings what was found into `folder`; a cancelled fetch stops at once.

        Raises:
            StorageError: the storage failed, or something is not what was found any more.
        """


class Open(Protocol):
    """What the module of a storage type provides as `open_storage`."""

    def __call__(self, config: StorageConfig, pod: Pod) -> Storage:
        """Opens the storage; it need not be reached yet. Raises StorageConfigError."""


@dataclass(frozen=True, slots=True)
class StorageType:
    """A storage type: who opens it (`package.module:function`), and its settings by name.

    All of a group in `together` are given, or none. `place` are those that only select a place inside the
    storage that an entry's credentials were made for: a model's parameters may replace them and no others.
    """

    opener: str
    required: tuple[str, ...]
    together: tuple[tuple[str, ...], ...] = ()
    optional: tuple[str, ...] = ()
    place: Mapping[str, MayOverride] = field(default_factory=dict)

    def open(self, config: StorageConfig, pod: Pod) -> Storage:
        """Opens a storage of this type.

        Raises:
            StorageConfigError: a setting is missing or cannot be used.
        """
        config.required(*self.required)
        for group in self.together:
            if any(config.text(name) for name in group):
                config.required(*group)
        module, _, function = self.opener.partition(":")
        opener: Open = getattr(importlib.import_module(module), function)
        return opener(config, pod)


def _like(pattern: str) -> MayOverride:
    """Values of this form, so that none becomes a part of a host name or of another path."""
    compiled = re.compile(pattern)
    return lambda _entry, value: bool(compiled.fullmatch(value))


def _below_url(entry: JSON, value: str) -> bool:
    """A URL of the entry's server, at or below its path: the query may differ."""
    allowed, asked = urlsplit(str(entry.get("url", ""))), urlsplit(value)
    path = allowed.path.rstrip("/")
    steps = asked.path.split("/")
    return (
        bool(allowed.netloc)
        and (allowed.scheme, allowed.netloc) == (asked.scheme, asked.netloc)
        and (asked.path.rstrip("/") == path or asked.path.startswith(f"{path}/"))
        and not any(step in {"..", "."} or "%" in step or "\\" in step for step in steps)
    )


BUILT_IN: Mapping[str, StorageType] = {
    "s3": StorageType(
        "adapters.puller.s3:open_storage",
        required=("bucket",),
        together=(("access_key_id", "secret_access_key"),),
        optional=(
            "endpoint_url",
            "region",
            "session_token",
            "certificate",
            "default_bucket",
            "addressing",
            "credentials",
        ),
        place={"bucket": _like(r"[A-Za-z0-9][A-Za-z0-9._-]*"), "region": _like(r"[A-Za-z0-9-]+")},
    ),
    "gcs": StorageType(
        "adapters.puller.gcs:open_storage",
        required=("bucket",),
        together=(("private_key", "client_email"),),
        optional=("token_uri", "endpoint_url", "certificate", "credentials"),
        place={"bucket": _like(r"[A-Za-z0-9][A-Za-z0-9._-]*")},
    ),
    "azure": StorageType(
        "adapters.puller.azure:open_storage",
        required=("account_name", "container"),
        together=(("client_id", "client_secret", "tenant_id"),),
        optional=("connection_string", "certificate", "credentials"),
        place={"container": _like(r"[A-Za-z0-9$][A-Za-z0-9-]*")},
    ),
    "http": StorageType(
        "adapters.puller.http:open_storage",
        required=("url",),
        together=(("client_certificate", "client_key"),),
        optional=("headers", "certificate"),
        place={"url": _below_url},
    ),
    "pvc": StorageType("adapters.puller.pvc:open_storage", required=("name",)),
}


def find_type(name: str, describe: str) -> StorageType:
    """The storage type of a name; `describe` says for messages where the settings come from.

    Raises:
        StorageConfigError: there is none; names those that there are.
    """
    if known := BUILT_IN.get(name):
        return known
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        installed: StorageType = point.load()
        return installed
    names = ", ".join(sorted({*BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))}))
    raise StorageConfigError(f'unknown storage type "{name}" ({describe}); known types: {names}')


def may_override(entry: JSON, name: str, value: str) -> bool:
    """Whether a model may set `name` over an entry of the Secret; repeating the entry's value is harmless."""
    if entry.get(name) == value:
        return True
    kind = BUILT_IN.get(str(entry.get("type")))
    allowed = kind.place.get(name) if kind else None
    return allowed is not None and allowed(entry, value)

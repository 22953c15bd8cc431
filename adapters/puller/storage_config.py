"""Which storage settings a model is pulled with: an entry of the storage Secret, and its own parameters.

Whoever may create a model must not be able to send the Secret's credentials to a server of their choice, so
over an entry the parameters may only say *where inside* the storage the model lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from adapters.errors import StorageConfigError, StorageKeyError
from adapters.puller.storage_types import BUILT_IN, may_override

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from adapters.puller.model_key import ModelKey

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """Settings of one pull: `values` as the type defines them, `entry` the Secret's entry they rest on."""

    values: JSON
    entry: str | None = None

    def text(self, name: str) -> str:
        """A setting, empty where it is absent or no string."""
        value = self.values.get(name)
        return value if isinstance(value, str) else ""

    def required(self, *names: str) -> None:
        """Checks that settings are present.

        Raises:
            StorageConfigError: names the missing ones and where they belong.
        """
        missing = [name for name in names if not self.text(name)]
        if missing:
            fields = ", ".join(missing)
            raise StorageConfigError(f"the storage settings lack {fields} ({self.describe()})")

    def describe(self) -> str:
        """Where the settings came from, for messages."""
        return f'storage key "{self.entry}"' if self.entry else "no storage key, parameters only"


def resolve(folder: Path, key: ModelKey) -> StorageConfig:
    """Works out the settings for a model, reading the Secret afresh, so that a change needs no restart.

    `folder` is the mounted Secret: a file per entry. Without a storage key the entry `default_TYPE`, or
    `default` where the parameters name no type, is used if it exists and the parameters stay within what it
    allows.

    Raises:
        StorageKeyError: the Secret has no such entry.
        StorageConfigError: unreadable entry, a parameter that may not override, or no type.
    """
    config = _with_entry(folder, key)
    values = config.values
    if values.get("type") == "s3" and values.get("default_bucket") and not values.get("bucket"):
        values = values | {"bucket": values["default_bucket"]}
    if key.bucket and values.get("bucket") and _refused(config.values, {"bucket": key.bucket}) is None:
        values = values | {"bucket": key.bucket}
    values = override(values, key.storage_params)
    if not isinstance(values.get("type"), str) or not values["type"]:
        # The first words are what functional tests of the original look for.
        raise StorageConfigError(
            f"Predictor Storage field missing: no storage type is known ({config.describe()}); "
            'set storage.key to an entry of the storage Secret, or the parameter "type"',
        )
    return StorageConfig(values, config.entry)


def _with_entry(folder: Path, key: ModelKey) -> StorageConfig:
    if key.storage_key:
        values = _read_entry(folder, key.storage_key)
        if refused := _refused(values, key.storage_params):
            kind = BUILT_IN.get(str(values.get("type")))
            allowed = ", ".join(sorted(kind.place) if kind else ()) or "none"
            raise StorageConfigError(
                f'storage parameter "{refused}" may not be set so over entry "{key.storage_key}" of the '
                "storage Secret: the entry's credentials could be sent to another server; "
                f"a model may choose for an entry of this type: {allowed}",
            )
        return StorageConfig(values, key.storage_key)
    asked_type = key.storage_params.get("type")
    implicit = f"default_{asked_type}" if asked_type else "default"
    if implicit in _entries(folder):
        values = _read_entry(folder, implicit)
        if not _refused(values, key.storage_params):
            return StorageConfig(values, implicit)
    return StorageConfig({})


def _entries(folder: Path) -> list[str]:
    """Names of the Secret's entries; Kubernetes keeps its own links beside them, with dots in front."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())


def _read_entry(folder: Path, name: str) -> JSON:
    entries = _entries(folder)
    if name not in entries:
        known = ", ".join(entries) or "none"
        raise StorageKeyError(
            f'storage key "{name}" is not in the storage Secret (a change of it can take two '
            f"minutes to reach a pod); it has: {known}",
        )
    try:
        return msgspec.json.decode((folder / name).read_bytes(), type=JSON)
    except (msgspec.MsgspecError, OSError) as error:
        # The content is secret, so only the kind of mistake is told.
        raise StorageConfigError(
            f'storage key "{name}" of the storage Secret is no JSON object: {error}'
        ) from error


def _refused(entry: JSON, params: Mapping[str, str]) -> str | None:
    """The first parameter that may not be laid over an entry."""
    return next((name for name, value in params.items() if not may_override(entry, name, value)), None)


def override(config: JSON, params: Mapping[str, str]) -> JSON:
    """A copy of `config` with parameters laid over it; dots in a parameter's name address nested objects.

    Raises:
        StorageConfigError: the way passes something that is no object, or ends on one.
    """
    merged = _copy(config)
    for name, value in params.items():
        *way, last = name.split(".")
        place = merged
        for step in way:
            place = place.setdefault(step, {})
            if not isinstance(place, dict):
                raise StorageConfigError(f'storage parameter "{name}" cannot be set: "{step}" is no object')
        if not isinstance(place.get(last, ""), str):
            raise StorageConfigError(
                f'storage parameter "{name}" cannot be set: it is no text in the storage entry'
            )
        place[last] = value
    return merged


def _copy(value: JSON) -> JSON:
    return {name: _copy(item) if isinstance(item, dict) else item for name, item in value.items()}

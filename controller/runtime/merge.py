"""Three-way merge of what we want, what we wanted last time, and what is there.

Fields we set are brought back to our value; fields we used to set and no longer do are taken away; fields
set by others or filled in by the server stay. What we set last time is remembered as the *names* of the
fields (like managedFields), not their values, so that no secret is copied.

Lists are merged item by item where their items have an identity (`_LIST_KEYS`, the keys that Kubernetes
itself merges by), so a container that an injector added survives. Other lists are ours as a whole; their
items are compared by position, so that defaults which the server put into them are no difference.

Two normalisations of the server are no difference either: quantities in another notation (`1000m` is `1`),
and empty values of ours that it does not store.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controller.runtime.client import JSON

Fields = dict[str, Any]
"""Names of fields: keys of a mapping; of a list's items `k:` and the JSON key, or `i:` and the position."""

_LIST_KEYS: dict[str, tuple[tuple[str, ...], ...]] = {
    "conditions": (("type",),),
    "containers": (("name",),),
    "env": (("name",),),
    "ephemeralContainers": (("name",),),
    "finalizers": ((),),
    "hostAliases": (("ip",),),
    "imagePullSecrets": (("name",),),
    "initContainers": (("name",),),
    "ownerReferences": (("uid",),),
    "ports": (("containerPort", "protocol"), ("port", "protocol")),
    "topologySpreadConstraints": (("topologyKey", "whenUnsatisfiable"),),
    "volumeDevices": (("devicePath",),),
    "volumeMounts": (("mountPath",),),
    "volumes": (("name",),),
    "webhooks": (("name",),),
}
_KEY_DEFAULTS = {"protocol": "TCP"}
# Mappings that many writers share key by key. Any other mapping of ours goes as a whole when we drop it: what
# is left of it would be defaults, as `defaultMode` of a configMap volume that became a secret volume.
_SHARED = frozenset({"annotations", "binaryData", "data", "labels", "metadata", "nodeSelector"})
_QUANTITIES = frozenset({"capacity", "hard", "limits", "requests"})
_QUANTITY = re.compile(r"([+-]?[0-9.]+)(?:([eE][+-]?[0-9]+)|([numkMGTPE]?i?))")
_SUFFIXES = {
    "": Decimal(1),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("num", -3)},
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", 1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", 1)},
}


def fields_of(value: Any, name: str = "") -> Fields:
    """Return the names of all fields set in `value`, which is the value of the field `name`."""
    if isinstance(value, dict):
        return {key: fields_of(item, key) for key, item in value.items()}
    if isinstance(value, list):
        keys = _keys(name, value)
        names = [f"i:{n}" for n in range(len(value))] if keys is None else [f"k:{key}" for key in keys]
        return {key: fields_of(item) for key, item in zip(names, value, strict=True)}
    return {}


def merge(desired: Any, live: Any, owned: Fields, name: str = "", *, quantity: bool = False) -> Any:
    """Return `live`, the value of the field `name`, changed to what `desired` asks for.

    Args:
        desired: what we want now.
        live: what is there.
        owned: `fields_of` what we wanted before; empty when that is unknown.
        name: the field's name.
        quantity: the values of the mapping are quantities.
    """
    if isinstance(desired, dict) and isinstance(live, dict):
        return _merge_mapping(desired, live, owned, quantity=name in _QUANTITIES)
    if isinstance(desired, list) and isinstance(live, list):
        return _merge_list(desired, live, owned, name)
    if quantity or name == "sizeLimit":
        return live if _amount(desired) == _amount(live) else desired
    return desired


def difference(before: JSON, after: JSON) -> JSON:
    """Return the JSON merge patch (RFC 7386) that makes `before` into `after`; empty when they are equal."""
    patch: JSON = {key: None for key in before if key not in after}
    for key, value in after.items():
        if key not in before:
            patch[key] = value
        elif isinstance(value, dict) and isinstance(before[key], dict):
            if inner := difference(before[key], value):
                patch[key] = inner
        elif value != before[key]:
            patch[key] = value
    return patch


def _merge_mapping(desired: JSON, live: JSON, owned: Fields, *, quantity: bool) -> JSON:
    merged = dict(live)
    for key in owned.keys() & live.keys() - desired.keys():
        _take_away(merged, key, owned[key])
    for key, value in desired.items():
        if key in live:
            merged[key] = merge(value, live[key], owned.get(key) or {}, key, quantity=quantity)
        elif key not in owned or not _is_empty(value):
            merged[key] = value
    return merged


def _take_away(merged: JSON, key: str, owned: Fields) -> None:
    """Remove what was ours of the field `key`, and the field itself when nothing of others is left."""
    value = merged[key]
    rest: Any = None
    if isinstance(value, list) and (keys := _keys(key, value)) is not None:
        rest = [item for item, item_key in zip(value, keys, strict=True) if f"k:{item_key}" not in owned]
    elif isinstance(value, dict) and key in _SHARED:
        rest = {name: item for name, item in value.items() if name not in owned}
    if rest:
        merged[key] = rest
    else:
        del merged[key]


def _merge_list(desired: list[Any], live: list[Any], owned: Fields, name: str) -> list[Any]:
    wanted, present = _keys(name, desired), _keys(name, live)
    if wanted is None or present is None:
        if len(desired) != len(live):
            return desired
        return [
            merge(want, have, owned.get(f"i:{n}") or {})
            for n, (want, have) in enumerate(zip(desired, live, strict=True))
        ]
    there = dict(zip(present, live, strict=True))
    merged = {
        key: merge(item, there[key], owned.get(f"k:{key}") or {}) if key in there else item
        for key, item in zip(wanted, desired, strict=True)
    }
    kept = [key for key in present if key in merged or f"k:{key}" not in owned]
    if [key for key in kept if key in merged] == list(merged):
        return [merged.get(key, there[key]) for key in kept]
    return [*merged.values(), *(there[key] for key in kept if key not in merged)]


def _keys(name: str, items: list[Any]) -> list[str] | None:
    """Return the identity of each item of the list field `name`; None when its items have none."""
    for names in _LIST_KEYS.get(name, ()):
        keys = [_key(item, names) for item in items]
        if None not in keys and len(set(keys)) == len(keys):
            return [key for key in keys if key is not None]
    return None


def _key(item: Any, names: Iterable[str]) -> str | None:
    if not names:
        return json.dumps(item) if isinstance(item, str) else None
    if not isinstance(item, dict):
        return None
    values = [item.get(name, _KEY_DEFAULTS.get(name)) for name in names]
    return None if None in values else json.dumps(values[0] if len(values) == 1 else values)


def _is_empty(value: Any) -> bool:
    """Whether the server may leave the value out, as Go's `omitempty` does."""
    return value in ("", 0, [], {}, None)  # 0 == False


def _amount(value: Any) -> Decimal | Any:
    """Return a quantity as a number; what is none, as it is."""
    match = _QUANTITY.fullmatch(str(value))
    if match is None or (match[3] and match[3] not in _SUFFIXES):
        return value
    try:
        return Decimal(match[1] + (match[2] or "")) * _SUFFIXES[match[3] or ""]
    except ArithmeticError:
        return value

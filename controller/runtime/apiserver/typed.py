"""Objects as sets of fields: the walk that both field ownership and server-side apply rest on.

A field is a path of elements as `metadata.managedFields` writes them: `f:spec` for a key, `k:{"name":"mm"}`
for an entry of a list known by keys, `v:"a"` for an entry of a set. A list without keys is one field, whole
(atomic). How a list behaves is said by the schema of a custom resource, in built-in kinds by the list's name.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from controller.runtime.apiserver.patches import PRIMITIVE_SETS, merge_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controller.runtime.apiserver.kinds import ServedKind
    from controller.runtime.client import JSON

Path = tuple[str, ...]
PRESENT: Final = object()
"""Value of the field that stands for the existence of a list entry."""

_UNOWNED: Final = frozenset(
    {
        ("f:apiVersion",),
        ("f:kind",),
        *(
            ("f:metadata", f"f:{name}")
            for name in (
                "creationTimestamp",
                "deletionGracePeriodSeconds",
                "deletionTimestamp",
                "generateName",
                "generation",
                "managedFields",
                "name",
                "namespace",
                "resourceVersion",
                "selfLink",
                "uid",
            )
        ),
    },
)
"""Fields that belong to nobody: identity, and what the server sets."""


class Place(NamedTuple):
    """Where a walk is: the schema there (None in built-in kinds and in metadata) and the field's name."""

    schema: JSON | None
    field: str = ""

    def child(self, key: str) -> Place:
        """Return the place of a field of an object here."""
        if self.schema is None or (not self.field and key == "metadata"):
            return Place(None, key)
        properties = self.schema.get("properties") or {}
        extra = self.schema.get("additionalProperties")
        return Place(properties.get(key) or (extra if isinstance(extra, dict) else {}), key)

    def entry(self) -> Place:
        """Return the place of the entries of a list here."""
        return Place(None if self.schema is None else self.schema.get("items") or {}, self.field)

    def atomic_map(self) -> bool:
        """Whether an object here is one field, whole."""
        return self.schema is not None and self.schema.get("x-kubernetes-map-type") == "atomic"

    def identify(self, entries: list[Any]) -> list[str] | None:
        """Return a path element for each entry of a list here, None when the list is one field, whole."""
        if self.schema is None:
            return self._identify_builtin(entries)
        match self.schema.get("x-kubernetes-list-type"):
            case "set":
                return [_by_value(entry) for entry in entries]
            case "map":
                defaults = (self.schema.get("items") or {}).get("properties") or {}
                keys = self.schema.get("x-kubernetes-list-map-keys") or []
                return _by_keys(entries, {key: (defaults.get(key) or {}).get("default") for key in keys})
            case _:
                return None

    def _identify_builtin(self, entries: list[Any]) -> list[str] | None:
        if self.field in PRIMITIVE_SETS:
            return [_by_value(entry) for entry in entries]
        if not all(isinstance(entry, dict) for entry in entries):
            return None
        key = merge_key(self.field, entries)
        if key is None or not all(key in entry for entry in entries):
            return None
        return _by_keys(entries, {key: None, "protocol": "TCP"} if self.field == "ports" else {key: None})


def _by_value(entry: Any) -> str:
    return "v:" + json.dumps(entry, separators=(",", ":"))


def _by_keys(entries: list[Any], keys: dict[str, Any]) -> list[str]:
    return [
        "k:" + json.dumps({key: entry.get(key, keys[key]) for key in sorted(keys)}, separators=(",", ":"))
        for entry in entries
    ]


def leaves(kind: ServedKind, obj: JSON) -> dict[Path, Any]:
    """Return the fields of an object that somebody can own, with their values."""
    return {path: value for path, value in _walk(Place(kind.schema), obj, ()) if path[:2] not in _UNOWNED}


def _walk(place: Place, value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value and not place.atomic_map():
        for key, item in value.items():
            deeper = (*path, f"f:{key}")
            if deeper not in _UNOWNED:
                yield from _walk(place.child(key), item, deeper)
        return
    if isinstance(value, list) and value:
        identities = place.identify(value)
        if identities is not None:
            for identity, entry in zip(identities, value, strict=True):
                deeper = (*path, identity)
                yield deeper, PRESENT
                if isinstance(entry, dict):
                    yield from _walk(place.entry(), entry, deeper)
            return
    if path:
        yield path, value


def merge(place: Place, live: Any, applied: Any) -> Any:
    """Return `live` with the fields of `applied` set; entries of keyed lists merge (`_interleave`)."""
    if isinstance(applied, dict) and isinstance(live, dict) and not place.atomic_map():
        result = dict(live)
        for key, item in applied.items():
            result[key] = merge(place.child(key), live.get(key), item)
        return result
    if isinstance(applied, list) and isinstance(live, list):
        wanted, present = place.identify(applied), place.identify(live)
        if wanted is not None and present is not None:
            entries = dict(zip(present, live, strict=True))
            for identity, entry in zip(wanted, applied, strict=True):
                entries[identity] = merge(place.entry(), entries.get(identity), entry)
            return [entries[identity] for identity in _interleave(present, list(dict.fromkeys(wanted)))]
    return applied


def _interleave(present: list[str], wanted: list[str]) -> list[str]:
    """Return the order of a merged list: what is only present stays where it is, the rest is as applied.

    The rule of kube-apiserver's structured-merge-diff.
    """
    order: list[str] = []
    shared = [identity for identity in wanted if identity in present]
    left, right = list(present), list(wanted)
    while left or right:
        if left and left[0] not in wanted:
            order.append(left.pop(0))
        elif left and right and left[0] == right[0]:
            order.append(right.pop(0))
            left.pop(0)
            shared = [identity for identity in shared if identity != order[-1]]
        elif left and (not shared or shared[0] != left[0]):
            left.pop(0)
        else:
            order.append(right.pop(0))
            shared = [identity for identity in shared if identity != order[-1]]
    return order


def without(place: Place, value: Any, gone: set[Path], path: Path = ()) -> Any:
    """Return `value` without the fields `gone`, and without objects and lists that this leaves empty."""
    if isinstance(value, dict):
        result = {}
        for key, item in value.items():
            deeper = (*path, f"f:{key}")
            if deeper in gone:
                continue
            kept = without(place.child(key), item, gone, deeper)
            if kept or not item or not isinstance(kept, dict | list):
                result[key] = kept
        return result
    identities = place.identify(value) if isinstance(value, list) else None
    if identities is None:
        return value
    return [
        without(place.entry(), entry, gone, (*path, identity))
        for identity, entry in zip(identities, value, strict=True)
        if (*path, identity) not in gone
    ]


def to_fields(paths: set[Path]) -> JSON:
    """Return a set of fields as `FieldsV1`."""
    root: JSON = {}
    for path in sorted(paths):
        node = root
        for element in path:
            node = node.setdefault(element, {})
        if path[-1][:2] in {"k:", "v:"}:
            node["."] = {}
    return _collapsed(root)


def _collapsed(node: JSON) -> JSON:
    """Write an entry without fields as `{}` instead of `{".": {}}`, as the API does."""
    return {key: {} if item == {".": {}} else _collapsed(item) for key, item in node.items()}


def from_fields(fields: JSON, path: Path = ()) -> set[Path]:
    """Return the set of fields that a `FieldsV1` describes."""
    found: set[Path] = set()
    for element, below in fields.items():
        deeper = (*path, element)
        if element == ".":
            found.add(path)
        elif below:
            found |= from_fields(below, deeper)
        else:
            found.add(deeper)
    return found


def shown(path: Path) -> str:
    """Return a field as messages write it: `.spec.containers[name="mm"].image`."""
    text = ""
    for element in path:
        kind, _, rest = element.partition(":")
        if kind == "f":
            text += f".{rest}"
        elif kind == "k":
            pairs = (f"{key}={json.dumps(value)}" for key, value in json.loads(rest).items())
            text += f"[{','.join(pairs)}]"
        else:
            text += f"[={rest}]"
    return text

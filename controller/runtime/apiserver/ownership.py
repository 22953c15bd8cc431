"""Field ownership (`metadata.managedFields`) and server-side apply.

Each manager owns the fields it set last. An *update* takes the fields it changes away from their owners. An
*apply* says all fields its manager wants: it takes what it says, and gives up what it said before and no
longer does, which is removed if nobody else owns it. A field that another manager owns with another value is
a conflict unless forced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from controller.runtime.apiserver import typed
from controller.runtime.apiserver.metadata import timestamp
from controller.runtime.apiserver.typed import PRESENT, Path, Place
from controller.runtime.errors import Conflict

if TYPE_CHECKING:
    from datetime import datetime

    from controller.runtime.apiserver.kinds import ServedKind
    from controller.runtime.client import JSON


class Owner(NamedTuple):
    """Whom an entry of `managedFields` is about."""

    manager: str
    operation: str
    subresource: str = ""


class _Entry(NamedTuple):
    owner: Owner
    api_version: str
    time: str
    paths: set[Path]


def _read(obj: JSON | None) -> list[_Entry]:
    entries = (obj or {"metadata": {}})["metadata"].get("managedFields") or ()
    return [
        _Entry(
            Owner(entry.get("manager", ""), entry.get("operation", "Update"), entry.get("subresource", "")),
            entry.get("apiVersion", ""),
            entry.get("time", ""),
            typed.from_fields(entry.get("fieldsV1") or {}),
        )
        for entry in entries
    ]


def _write(obj: JSON, entries: list[_Entry]) -> None:
    managed = [_to_json(entry) for entry in entries if entry.paths]
    if managed:
        obj["metadata"]["managedFields"] = managed
    else:
        obj["metadata"].pop("managedFields", None)


def _to_json(entry: _Entry) -> JSON:
    body: JSON = {
        "manager": entry.owner.manager,
        "operation": entry.owner.operation,
        "apiVersion": entry.api_version,
        "time": entry.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": typed.to_fields(entry.paths),
    }
    if entry.owner.subresource:
        body["subresource"] = entry.owner.subresource
    return body


def track_update(kind: ServedKind, old: JSON | None, new: JSON, owner: Owner, now: datetime) -> None:
    """Record in `new`, in place, that `owner` set what differs from `old`."""
    entries = _read(old)
    before = typed.leaves(kind, old) if old else {}
    after = typed.leaves(kind, new)
    changed = {path for path, value in after.items() if path not in before or before[path] != value}
    removed = before.keys() - after.keys()
    if changed or removed:
        entries = [entry._replace(paths=entry.paths - changed - removed) for entry in entries]
    if changed:
        mine = {path for entry in entries if entry.owner == owner for path in entry.paths}
        fresh = _Entry(owner, kind.resource.api_version, timestamp(now), mine | changed)
        entries = [entry for entry in entries if entry.owner != owner] + [fresh]
    _write(new, entries)


def apply(
    kind: ServedKind, live: JSON | None, wanted: JSON, owner: Owner, now: datetime, *, force: bool
) -> JSON:
    """Return the object that results from `owner` applying `wanted` to `live` (None: it is not there yet).

    Raises:
        Conflict: without `force`, another manager owns a field with another value.
    """
    entries = _read(live)
    wanted_fields = typed.leaves(kind, wanted)
    live_fields = typed.leaves(kind, live) if live else {}
    others = [entry for entry in entries if entry.owner != owner]
    contested = {
        path
        for path, value in wanted_fields.items()
        if value is not PRESENT and path in live_fields and live_fields[path] != value
    }
    if not force:
        _refuse(
            kind, wanted, [(entry, contested & entry.paths) for entry in others if contested & entry.paths]
        )
    others = [entry._replace(paths=entry.paths - contested) for entry in others]
    before = next((entry for entry in entries if entry.owner == owner), None)
    kept = set().union(*(_with_parents(entry.paths) for entry in others), _with_parents(set(wanted_fields)))
    gone = before.paths - kept if before else set()
    place = Place(kind.schema)
    result: JSON = typed.merge(place, typed.without(place, live or {}, gone), wanted)
    result["metadata"] = dict(result["metadata"])
    paths = set(wanted_fields)
    same = before is not None and before.paths == paths and not gone and not (contested or live is None)
    time = before.time if same and before else timestamp(now)
    _write(result, [*others, _Entry(owner, kind.resource.api_version, time, paths)])
    return result


def _with_parents(paths: set[Path]) -> set[Path]:
    """Return the fields and all that contain them: an entry whose field somebody owns must stay."""
    return {path[:length] for path in paths for length in range(1, len(path) + 1)}


def _refuse(kind: ServedKind, wanted: JSON, conflicts: list[tuple[_Entry, set[Path]]]) -> None:
    if not conflicts:
        return
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{entry.owner.manager}" using {entry.api_version}',
            "field": typed.shown(path),
        }
        for entry, paths in conflicts
        for path in sorted(paths)
    ]
    number = f"{len(causes)} conflict{'s' if len(causes) > 1 else ''}"
    listed = ", ".join(f"{cause['message']}: {cause['field']}" for cause in causes)
    details: JSON = {
        "name": wanted["metadata"].get("name", ""),
        "kind": kind.resource.plural,
        "causes": causes,
    }
    raise Conflict(f"Apply failed with {number}: {listed}", details=details)

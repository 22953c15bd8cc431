"""What deleting an object means: gone at once, or marked and waiting for whoever still has to act."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from controller.runtime.apiserver.metadata import timestamp
from controller.runtime.apiserver.values import copy_json, get_path

if TYPE_CHECKING:
    from datetime import datetime

    from controller.runtime.apiserver.kinds import ServedKind
    from controller.runtime.client import JSON

_GRACE_SECONDS: Final = 30
"""Kubernetes' default time for a pod to end."""
_POLICY_FINALIZERS: Final = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}
"""What a propagation policy leaves on the object, for the collector of owned objects."""


class DeleteOptions(NamedTuple):
    """Options of a deletion; empty preconditions are not checked.

    Attributes:
        resource_version: delete only this version of the object.
        uid: delete only this incarnation of the object.
        propagation: `Background`, `Foreground` or `Orphan`; the last two leave a finalizer on the object, on
            which the collector of owned objects acts.
        grace_seconds: 0 removes at once an object whose kind is deleted gracefully (a pod on a node).
        dry_run: check and answer, remove nothing.
    """

    resource_version: str = ""
    uid: str = ""
    propagation: str = "Background"
    grace_seconds: int | None = None
    dry_run: bool = False


def held_by(obj: JSON) -> list[Any]:
    """Return the finalizers that hold an object."""
    return obj["metadata"].get("finalizers") or []


def finished(obj: JSON) -> bool:
    """Whether an object is marked for deletion and nothing in it holds it any longer."""
    meta = obj["metadata"]
    waits = held_by(obj) or meta.get("deletionGracePeriodSeconds")
    return bool(meta.get("deletionTimestamp") and not waits)


def mark(kind: ServedKind, old: JSON, options: DeleteOptions, now: datetime) -> JSON:
    """Return the object with its deletion recorded; `finished` says whether it may go at once."""
    new: JSON = copy_json(old)
    meta = new["metadata"]
    holds = [hold for hold in held_by(old) if hold not in _POLICY_FINALIZERS.values()]
    if options.propagation in _POLICY_FINALIZERS:
        holds.append(_POLICY_FINALIZERS[options.propagation])
    if holds:
        meta["finalizers"] = holds
    else:
        meta.pop("finalizers", None)
    grace = _grace(kind, old, options)
    if not meta.get("deletionTimestamp") or grace < meta.get("deletionGracePeriodSeconds", 0):
        meta["deletionTimestamp"] = timestamp(now + timedelta(seconds=grace))
        meta["deletionGracePeriodSeconds"] = grace
        if "generation" in meta:
            meta["generation"] += 1
    return new


def _grace(kind: ServedKind, obj: JSON, options: DeleteOptions) -> int:
    if not kind.graceful(obj):
        return 0
    if options.grace_seconds is not None:
        return max(options.grace_seconds, 0)
    return get_path(obj, "spec", "terminationGracePeriodSeconds") or _GRACE_SECONDS

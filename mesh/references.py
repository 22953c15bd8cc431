"""The rules of vmodels as pure functions: where one moves, and which models it refers to.

A vmodel refers once to each model that it names, active and target. What a change does to the counts follows
from the records before and after it alone; no step counts by hand, so none can leak a reference.
"""

from collections.abc import Collection

from msgspec.structs import replace

from store.records import ModelRecord, VModelRecord

Changes = dict[str, int]
"""Model id -> +1 for a reference that begins, -1 for one that ends."""


def referred(record: VModelRecord | None) -> frozenset[str]:
    """The models that a vmodel refers to."""
    return frozenset({record.active, record.target}) if record else frozenset()


def changes(
    before: VModelRecord | None, after: VModelRecord | None, *, lost: Collection[str] = ()
) -> Changes:
    """What a change of a vmodel does to the counts of models; what referred to a lost record begins anew."""
    was = referred(before) - frozenset(lost)
    now = referred(after)
    return dict.fromkeys(sorted(now - was), 1) | dict.fromkeys(sorted(was - now), -1)


def counted(record: ModelRecord, change: int) -> ModelRecord | None:
    """A model's record with its references changed; None where it goes with the last one."""
    refs = max(0, record.refs + change)
    return None if change < 0 and refs == 0 and record.auto_delete else replace(record, refs=refs)


def retargeted(current: VModelRecord, target: str, *, force: bool, at_once: bool) -> VModelRecord:
    """Where a vmodel stands after `setVModel`.

    `at_once`: nothing would be lost by switching to another target now. `force` switches also to the target
    that it already moves to.
    """
    if target == current.target:
        return switched(current) if force and current.in_transition else current
    if target == current.active:
        return replace(current, target=target, failed=False)
    moved = replace(current, target=target, failed=False)
    return switched(moved) if force or at_once else moved


def switched(current: VModelRecord) -> VModelRecord:
    """The target has become the active model."""
    return replace(current, active=current.target, failed=False)

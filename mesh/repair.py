"""What is wrong between the registry and this instance, and with records as such: pure functions.

The registry is written after the fact, by many, and survives its writers, so it can be wrong about an
instance at any time. `inspect` finds all of it in one pass, each finding by itself; `mended` is the repair.
"""

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from mesh import copies
from mesh.copies import USUAL_TERMS, FailureTerms
from store.records import ModelRecord, Resources

HOUR_MS = 3_600_000
SKEW_MS = 1 * HOUR_MS
"""A time further ahead than clocks may differ is no time at all."""
CORRECTED_AGE_MS = 3 * HOUR_MS
"""What was used at an impossible time counts as used so long ago; the original's number."""
STALE_USE_MS = 6 * HOUR_MS
"""The last use in a record may be this far behind: it is not worth a write for every request."""


@dataclass(frozen=True, slots=True)
class Held:
    """A copy on this instance."""

    model_id: str
    last_used: int
    size: Resources
    loaded: bool
    """Else it is on its way."""


class Finding(enum.Enum):
    """What is wrong with one model."""

    IMPOSSIBLE_USE = "the copy's last use lies in the future"
    NOT_REGISTERED = "the copy is loaded, but the model is not registered"
    NOT_RECORDED = "the copy is loaded, but its record does not say so"
    STALE_USE = "the last use in the record is hours behind"
    NOT_HERE = "the record names a copy that is not here"
    EXPIRED = "a failure is too long ago to matter"


IN_MEMORY = frozenset({Finding.IMPOSSIBLE_USE, Finding.NOT_REGISTERED})
"""Findings that are not repaired by writing the record."""


def inspect(
    held: Iterable[Held],
    named: Mapping[str, ModelRecord],
    own_id: str,
    now: int,
    failure_terms: FailureTerms = USUAL_TERMS,
) -> list[tuple[str, Finding]]:
    """Everything that is wrong; one finding does not hide another.

    `held` are the copies here, `named` the records of their models and of all that name this instance.
    """
    findings = []
    here = {}
    for copy in held:
        here[copy.model_id] = copy
        if impossible(copy.last_used, now):
            findings.append((copy.model_id, Finding.IMPOSSIBLE_USE))
        if copy.loaded and copy.model_id not in named:
            findings.append((copy.model_id, Finding.NOT_REGISTERED))
    for model_id, record in named.items():
        found = _of_record(record, here.get(model_id), own_id, now, failure_terms)
        findings += [(model_id, finding) for finding in found]
    return findings


def mended(
    own_id: str, copy: Callable[[], Held | None], now: int, failure_terms: FailureTerms = USUAL_TERMS
) -> Callable[[ModelRecord], ModelRecord]:
    """The change that repairs what a record says of this instance. `copy` tells how things are by then."""

    def change(record: ModelRecord) -> ModelRecord:
        held = copy()
        for finding in _of_record(record, held, own_id, now, failure_terms):
            if finding is Finding.NOT_RECORDED and held:
                record = copies.loaded(own_id, now, held.size)(record) or record
            elif finding is Finding.STALE_USE and held:
                record = replace(record, last_used=held.last_used)
            elif finding is Finding.NOT_HERE:
                record = copies.gone(own_id)(record) or record
            elif finding is Finding.EXPIRED:
                record = copies.forgiven(own_id)(record)
        return record

    return change


def impossible(time: int, now: int) -> bool:
    """Whether a time, in ms since 1970, cannot be one of the past."""
    return not 0 <= time <= now + SKEW_MS


def is_plausible(record: ModelRecord, now: int) -> bool:
    """Whether `plausible` would change nothing. Quick: it is asked of every model there is."""
    latest = now + SKEW_MS
    if not (0 <= record.last_used <= latest and 0 <= record.last_unload <= latest):
        return False
    return not (record.instances or record.failed) or plausible(record, now) is record


def plausible(record: ModelRecord, now: int) -> ModelRecord:
    """The record with impossible times corrected; itself where there are none."""
    maps = {"instances": record.instances, "loaded": record.loaded, "failed": record.failed}
    changed: dict[str, Any] = {
        name: {id_: now if impossible(time, now) else time for id_, time in times.items()}
        for name, times in maps.items()
        if any(impossible(time, now) for time in times.values())
    }
    if impossible(record.last_used, now):
        changed["last_used"] = now - CORRECTED_AGE_MS
    if impossible(record.last_unload, now):
        changed["last_unload"] = 0
    return replace(record, **changed) if changed else record


def _of_record(
    record: ModelRecord, held: Held | None, own_id: str, now: int, failure_terms: FailureTerms
) -> Iterable[Finding]:
    if held is None and own_id in record.instances:
        yield Finding.NOT_HERE
    if held and held.loaded:
        if own_id not in record.loaded or own_id in record.failed:
            yield Finding.NOT_RECORDED
        if not impossible(held.last_used, now) and held.last_used > record.last_used + STALE_USE_MS:
            yield Finding.STALE_USE
    elif failure_terms.expired(record, own_id, now):
        yield Finding.EXPIRED

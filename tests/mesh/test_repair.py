"""Every fault between an instance and the registry is found in one pass, and repaired."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext

import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from mesh import copies, repair
from mesh.errors import LoadFailedError
from mesh.repair import Finding, Held
from store.records import Failure, ModelRecord, Resources

NOW = 1_800_000_000_000
NEVER = 2**63 - 1
HOUR = 3_600_000
Inspect = Callable[[Iterable[Held], Mapping[str, ModelRecord], str, int], list[tuple[str, Finding]]]


def held(model_id: str, last_used: int = NOW, *, loaded: bool = True) -> Held:
    return Held(model_id, last_used, Resources(5), loaded)


def on(instance_id: str) -> ModelRecord:
    return ModelRecord(instances={instance_id: 1}, loaded={instance_id: 2}, last_used=NOW)


def as_the_original(
    copies_here: Iterable[Held], named: Mapping[str, ModelRecord], own_id: str, now: int
) -> list[tuple[str, Finding]]:
    """Goes from the newest to the oldest, and is done for this time when it has corrected a timestamp."""
    newest_first = sorted(copies_here, key=lambda copy: -copy.last_used)
    findings: list[tuple[str, Finding]] = []
    for copy in newest_first:
        records = {copy.model_id: named[copy.model_id]} if copy.model_id in named else {}
        findings += repair.inspect([copy], records, own_id, now)
        if findings and findings[-1][1] is Finding.IMPOSSIBLE_USE:
            return findings
    return findings


@pytest.mark.parametrize(
    ("inspect", "outcome"),
    [
        pytest.param(repair.inspect, nullcontext(), id="ours"),
        pytest.param(as_the_original, pytest.raises(AssertionError), id="original"),
    ],
)
def test_one_corrupted_timestamp_does_not_end_the_pass(
    inspect: Inspect, outcome: AbstractContextManager[object]
) -> None:
    """[defect] In the original nothing else is repaired on an instance with one such copy."""
    named = {"bad": on("one"), "lost": ModelRecord(last_used=NOW), "old": on("one")}
    here = [held("bad", NEVER), held("lost"), held("old", NOW + HOUR)]
    with outcome:
        assert set(inspect(here, named, "one", NOW)) == {
            ("bad", Finding.IMPOSSIBLE_USE),
            ("lost", Finding.NOT_RECORDED),
        }


def test_a_healthy_instance_has_no_findings() -> None:
    named = {"a": on("one"), "b": ModelRecord(instances={"one": 1, "two": 1}), "c": ModelRecord()}
    here = [held("a"), held("b", loaded=False), held("c", loaded=False)]
    assert repair.inspect(here, named, "one", NOW) == []


@pytest.mark.parametrize(
    ("copy", "record", "finding"),
    [
        (held("m"), None, Finding.NOT_REGISTERED),
        (held("m"), ModelRecord(last_used=NOW), Finding.NOT_RECORDED),
        (held("m"), ModelRecord(instances={"one": 1}, last_used=NOW), Finding.NOT_RECORDED),
        (
            held("m"),
            ModelRecord(instances={"one": 1}, loaded={"one": 1}, failed={"one": 1}, last_used=NOW),
            Finding.NOT_RECORDED,
        ),
        (held("m"), ModelRecord(instances={"one": 1}, loaded={"one": 1}), Finding.STALE_USE),
        (None, ModelRecord(instances={"one": 1}), Finding.NOT_HERE),
        (None, ModelRecord(failed={"one": NOW - HOUR}), Finding.EXPIRED),
    ],
)
def test_each_fault_is_found_and_mended(
    copy: Held | None, record: ModelRecord | None, finding: Finding
) -> None:
    named = {"m": record} if record else {}
    here = [copy] if copy else []
    assert repair.inspect(here, named, "one", NOW) == [("m", finding)]
    if record and finding not in repair.IN_MEMORY:
        after = repair.mended("one", lambda: copy, NOW)(record)
        assert repair.inspect(here, {"m": after}, "one", NOW) == []


@pytest.mark.parametrize("expiry_ms", [2_000, 900_000])
def test_a_failure_is_forgotten_when_it_expires(expiry_ms: int) -> None:
    terms = copies.FailureTerms(expiry_ms)
    error = LoadFailedError(StatusCode.NOT_FOUND, "no object")
    record: ModelRecord | None = ModelRecord()
    for _ in range(3):
        record = copies.failed("one", NOW, error)(record)
    assert record is not None
    assert repair.inspect([], {"m": record}, "one", NOW + expiry_ms - 1, terms) == []
    later = NOW + expiry_ms
    assert repair.inspect([], {"m": record}, "one", later, terms) == [("m", Finding.EXPIRED)]
    after = repair.mended("one", lambda: None, later, terms)(record)
    assert (after.failed, after.failures) == ({}, {})


def test_what_others_hold_is_left_alone() -> None:
    record = ModelRecord(
        instances={"two": 1}, failed={"three": 1}, failures={"three": Failure("x")}, last_used=NOW
    )
    after = repair.mended("one", lambda: held("m"), NOW)(record)
    assert after.instances.keys() == {"one", "two"}
    assert (after.failed, after.failures) == (record.failed, record.failures)


TIMES = st.sampled_from([0, 1, NOW - HOUR, NOW, NOW + HOUR, NOW + HOUR + 1, NEVER, -1, -NEVER])


@given(
    instances=st.dictionaries(st.sampled_from("ab"), TIMES),
    failed=st.dictionaries(st.sampled_from("cd"), TIMES),
    last_used=TIMES,
    last_unload=TIMES,
)
def test_impossible_times_are_corrected_and_others_kept(
    instances: dict[str, int], failed: dict[str, int], last_used: int, last_unload: int
) -> None:
    record = ModelRecord(instances=instances, failed=failed, last_used=last_used, last_unload=last_unload)
    after = repair.plausible(record, NOW)
    assert repair.plausible(after, NOW) is after
    assert repair.is_plausible(after, NOW)
    assert repair.is_plausible(record, NOW) is (after == record)
    assert after.instances.keys() == instances.keys()
    for before, now in [*zip(instances.values(), after.instances.values(), strict=True)]:
        assert now == (NOW if repair.impossible(before, NOW) else before)
    if not repair.impossible(last_used, NOW):
        assert after.last_used == last_used

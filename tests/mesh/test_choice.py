"""What an instance does next for a model without a usable copy."""

from collections.abc import Callable, Collection
from typing import Any

import pytest
from grpc import StatusCode

from mesh import copies
from mesh.bytes import Route
from mesh.choice import MAX_COPIES, Candidates, OwnCopy, existing, further
from mesh.constraints import TypeConstraints
from mesh.errors import LoadFailedError
from mesh.placement import Placement, Reason
from store.records import InstanceRecord, ModelRecord, Resources

NOW = 1_000_000_000
ANY = TypeConstraints()
BROKEN = LoadFailedError(StatusCode.NOT_FOUND, "no object")


def found(own: OwnCopy | None = None, *peers: Route, tried: Collection[str] = ()) -> Placement | None:
    return existing(own, peers, own_id="own", tried=tried)


def instances(*names: str, **fields: Any) -> dict[str, InstanceRecord]:
    record = InstanceRecord(capacity=Resources(100), load_slots=1, ready=True, **fields)
    return dict.fromkeys(names, record)


def place(
    record: ModelRecord, *names: str, tried: Collection[str] = (), failed: Collection[str] = ()
) -> Placement:
    candidates = Candidates().of(instances(*names), ANY)
    return further(
        record, Resources(1), NOW, ANY, candidates, tried=tried, failed=failed, own_id="own", now=NOW
    )


def test_a_copy_that_can_serve_is_taken_before_one_that_is_loading() -> None:
    loading, loaded = Route("a", "a:1", loaded=False), Route("b", "b:1")
    assert found(OwnCopy(loaded=True), loaded) == Placement("own", Reason.LOADED)
    assert found(OwnCopy(loaded=False), loaded) == Placement("b", Reason.LOADED)
    assert found(None, loading, loaded) == Placement("b", Reason.LOADED)
    assert found(OwnCopy(loaded=False), loading) == Placement("own", Reason.LOADING)
    assert found(None, loading) == Placement("a", Reason.LOADING)
    assert found() is None


def test_copies_that_failed_the_request_do_not_count() -> None:
    assert found(OwnCopy(loaded=True), Route("b", "b:1"), tried={"own", "b"}) is None
    assert found(OwnCopy(loaded=True), Route("b", "b:1"), tried={"own"}) == Placement("b", Reason.LOADED)


def test_an_instance_where_the_model_failed_lately_is_not_asked_again_before_its_rest_is_over() -> None:
    record = copies.failed("own", NOW - copies.FIRST_RETRY_MS + 1, BROKEN)(ModelRecord())
    assert record is not None
    assert place(record, "own", "a").instance_id == "a"
    record = copies.failed("own", NOW - copies.FIRST_RETRY_MS, BROKEN)(ModelRecord())
    assert record is not None
    assert place(record, "own", "a").instance_id == "own"


def test_failures_on_three_instances_end_it() -> None:
    record: ModelRecord | None = ModelRecord()
    for name in "abc":
        assert record is not None
        assert place(record, "own", *"abc").reason is Reason.FREE_HERE
        record = copies.failed(name, NOW, BROKEN)(record)
    assert record is not None
    assert place(record, "own", *"abc") == Placement(None, Reason.FAILED)
    assert place(record, "own", *"ab").reason is Reason.FREE_HERE, "one of them has gone"


def test_with_five_copies_of_which_none_can_serve_no_other_is_loaded() -> None:
    names = [f"i{number}" for number in range(MAX_COPIES)]
    record = ModelRecord(instances=dict.fromkeys(names, 1))
    assert place(record, "own", *names, tried=names) == Placement(None, Reason.COPIES)
    assert place(record, "own", *names[1:], tried=names).instance_id == "own"


Rule = Callable[[Collection[str]], Placement]


def ours(failed: Collection[str]) -> Placement:
    return place(ModelRecord(), "own", *"abcd", tried=failed, failed=failed)


def without_what_peers_said(failed: Collection[str]) -> Placement:
    """The original's rule: failures elsewhere in this request are lost, the record does not have them yet."""
    return place(ModelRecord(), "own", *"abcd", tried=failed)


def check_failures_elsewhere_count_at_once(rule: Rule) -> None:
    assert rule("abc") == Placement(None, Reason.FAILED)


def test_failures_elsewhere_count_in_this_request_before_the_record_says_so() -> None:
    check_failures_elsewhere_count_at_once(ours)
    with pytest.raises(AssertionError):
        check_failures_elsewhere_count_at_once(without_what_peers_said)


def test_candidates_are_those_that_stay_and_follow_their_records() -> None:
    known = Candidates()
    rows = instances("a", "b") | instances("c", shutdown=True)
    first = known.of(rows, ANY)
    assert [each.instance_id for each in first] == ["a", "b"]
    again = known.of(rows, ANY)
    assert all(before is now for before, now in zip(first, again, strict=True)), "nothing is made twice"
    changed = known.of(rows | instances("b", rpm=7), ANY)
    assert [each.rpm for each in changed] == [0, 7]
    assert len(known.of(instances("b"), ANY)) == 1

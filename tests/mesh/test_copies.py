"""Records stay consistent whatever happens to copies, in any order."""

import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from mesh import copies
from mesh.errors import LoadFailedError
from store.records import Failure, ModelRecord, Resources

BROKEN = LoadFailedError(StatusCode.NOT_FOUND, "no object")
INSTANCES = st.sampled_from(["a", "b", "c"])


def changes(instance: str, now: int) -> list[copies.Change]:
    return [
        copies.claimed(instance, now, now),
        copies.loaded(instance, now, Resources(5)),
        copies.failed(instance, now, BROKEN),
        copies.gone(instance, now=now),
        copies.used(now),
        lambda record: record and copies.vanished(instance)(record),
    ]


@given(st.lists(st.tuples(INSTANCES, st.integers(0, 5)), max_size=30))
def test_a_copy_is_never_both_held_and_failed(steps: list[tuple[str, int]]) -> None:
    record: ModelRecord | None = ModelRecord(type="t")
    for now, (instance, which) in enumerate(steps, 1):
        record = changes(instance, now)[which](record)
        assert record is not None
        assert not record.instances.keys() & record.failed.keys()
        assert record.loaded.keys() <= record.instances.keys()
        assert record.failed.keys() <= record.failures.keys()


def test_nothing_brings_a_deleted_model_back() -> None:
    for change in changes("a", 1):
        assert change(None) is None


@pytest.mark.parametrize(
    ("expiry_ms", "expected"),
    [
        (900_000, [10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 450_000, 450_000]),
        (60_000, [10_000, 20_000, 30_000, 30_000]),
        (2_000, [1_000, 1_000]),
    ],
)
def test_rests_grow_to_half_of_the_expiry(expiry_ms: int, expected: list[int]) -> None:
    terms = copies.FailureTerms(expiry_ms)
    record: ModelRecord | None = ModelRecord(type="t")
    for rest in expected:
        record = copies.failed("a", 0, BROKEN)(record)
        assert record is not None
        assert terms.retry_at(record, "a") == rest


def test_rests_begin_again_after_a_success() -> None:
    record: ModelRecord | None = ModelRecord(type="t")
    for _ in range(3):
        record = copies.claimed("a", 0, 0)(copies.failed("a", 0, BROKEN)(record))
    record = copies.failed("a", 0, BROKEN)(copies.loaded("a", 0, Resources(5))(record))
    assert record is not None
    assert copies.USUAL_TERMS.retry_at(record, "a") == 10_000
    assert copies.USUAL_TERMS.retry_at(record, "b") == 0


def test_the_last_failure_is_the_error_that_it_was() -> None:
    record = copies.failed("b", 2, BROKEN)(
        copies.failed("a", 1, LoadFailedError(StatusCode.UNKNOWN, "x"))(ModelRecord())
    )
    assert record is not None
    error = copies.last_failure(record)
    assert error is not None
    assert (str(error), error.cause, error.code) == (
        str(BROKEN),
        BROKEN.cause,
        StatusCode.FAILED_PRECONDITION,
    )


def test_a_record_with_an_impossible_count_of_failures_is_tried_again_as_after_one() -> None:
    for count in (-3, 0, 10**9):
        record = ModelRecord(failed={"a": 5}, failures={"a": Failure(n=count)})
        rest = copies.USUAL_TERMS.retry_at(record, "a") - 5
        assert copies.FIRST_RETRY_MS <= rest <= copies.USUAL_TERMS.longest_rest_ms


def test_a_failure_keeps_the_beginning_of_a_long_text() -> None:
    record = copies.failed("a", 0, LoadFailedError(StatusCode.UNKNOWN, "x" * 100_000))(ModelRecord())
    assert record is not None
    assert record.failures["a"].msg == "x" * copies.MAX_FAILURE_TEXT


def test_a_use_that_the_record_knows_changes_nothing() -> None:
    record = ModelRecord(last_used=5)
    assert copies.used(5)(record) is record
    assert copies.used(6)(record) == ModelRecord(last_used=6)

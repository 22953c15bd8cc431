# ruff: noqa: FBT001
"""A vmodel holds one reference to each model that it names, whatever is asked of it in whatever order."""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mesh import references
from store.records import ModelRecord, VModelRecord

Rule = Callable[[VModelRecord | None, str, bool, bool], tuple[VModelRecord, dict[str, int]]]
"""(before, target, force, at once) -> the record after `setVModel`, and what it does to the counts."""
Step = tuple[str, bool, bool]


def ours(
    before: VModelRecord | None, target: str, force: bool, at_once: bool
) -> tuple[VModelRecord, dict[str, int]]:
    if before is None:
        after = VModelRecord(active=target, target=target)
    else:
        after = references.retargeted(before, target, force=force, at_once=at_once)
    return after, references.changes(before, after)


def as_the_original(
    before: VModelRecord | None, target: str, force: bool, at_once: bool
) -> tuple[VModelRecord, dict[str, int]]:
    """Counts the requested target up on every write, also where the vmodel refers to it already."""
    after, changes = ours(before, target, force, at_once)
    if before is not None and after != before:
        changes[target] = 1
    return after, changes


def run(rule: Rule, steps: list[Step]) -> None:
    counts: Counter[str] = Counter()
    record: VModelRecord | None = None
    for target, force, at_once in steps:
        record, changes = rule(record, target, force, at_once)
        counts.update(changes)
        assert {model_id for model_id, refs in counts.items() if refs} == references.referred(record)
        assert set(counts.values()) <= {0, 1}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), max_size=20))
def test_counts_are_exact_after_any_steps(steps: list[Step]) -> None:
    run(ours, steps)


BOTH = [
    pytest.param(ours, nullcontext(), id="ours"),
    pytest.param(as_the_original, pytest.raises(AssertionError), id="original"),
]


@pytest.mark.parametrize(("rule", "outcome"), BOTH)
def test_going_back_to_the_active_model_while_moving_adds_no_reference(
    rule: Rule, outcome: AbstractContextManager[object]
) -> None:
    """[defect] In the original the model could never be deleted again."""
    with outcome:
        run(rule, [("a", False, False), ("b", False, False), ("a", False, False)])


@pytest.mark.parametrize(("rule", "outcome"), BOTH)
def test_force_on_a_target_that_is_set_already_adds_no_reference(
    rule: Rule, outcome: AbstractContextManager[object]
) -> None:
    """[defect] As before."""
    with outcome:
        run(rule, [("a", False, False), ("b", False, False), ("b", True, False)])


def test_a_lost_record_is_referred_to_anew() -> None:
    record = VModelRecord(active="a", target="b")
    assert references.changes(record, record) == {}
    assert references.changes(record, record, lost={"b"}) == {"b": 1}
    assert references.changes(record, None, lost={"b"}) == {"a": -1}


def test_a_model_goes_with_its_last_reference_if_it_shall() -> None:
    kept, going = ModelRecord(refs=1), ModelRecord(refs=1, auto_delete=True)
    assert references.counted(kept, -1) == replace(kept, refs=0)
    assert references.counted(going, -1) is None
    assert references.counted(replace(going, refs=2), -1) == going
    assert references.counted(replace(kept, refs=0), -1) == replace(kept, refs=0), "never below zero"

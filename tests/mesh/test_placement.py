"""Placement reads each candidate's own record, and says why it chose."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.constraints import ANYWHERE, Requirement, TypeConstraints, allows
from mesh.placement import YOUNG_MS, Candidate, Placement, Reason, Wish, place
from store.records import Resources

NOW = 1_000_000_000


def candidate(name: str, **fields: Any) -> Candidate:
    defaults: dict[str, Any] = {
        "labels": frozenset(),
        "capacity": Resources(100),
        "used": Resources(0),
        "lru_time": 0,
        "loading": 0,
        "load_slots": 2,
        "rpm": 0,
        "ready": True,
    }
    return Candidate(instance_id=name, **defaults | fields)


def full(name: str, age_ms: int, **fields: Any) -> Candidate:
    return candidate(name, used=Resources(100), lru_time=NOW - age_ms, **fields)


def choose(*candidates: Candidate, **options: Any) -> Placement:
    wish = wished(**options)
    decision = place(wish, candidates, own_id="own", now=NOW)
    again = place(wish, candidates[::-1], own_id="own", now=NOW)
    assert decision == again, "the order of the candidates does not matter"
    return decision


def wished(
    requirement: Requirement = ANYWHERE,
    size: int = 10,
    last_used: int = NOW,
    holders: tuple[str, ...] = (),
    excluded: tuple[str, ...] = (),
) -> Wish:
    return Wish(requirement, Resources(size), last_used, holders, excluded)


def test_room_here_is_best() -> None:
    assert choose(candidate("a"), candidate("own")) == Placement("own", Reason.FREE_HERE)


def test_room_elsewhere_is_better_than_an_eviction_here() -> None:
    assert choose(full("own", 10**8), candidate("a")) == Placement("a", Reason.FREE_MOST)


def test_the_size_decides_what_room_is() -> None:
    small = candidate("own", used=Resources(95))
    assert choose(small, candidate("a"), size=10).instance_id == "a"
    assert choose(small, candidate("a"), size=5).instance_id == "own"


def test_a_free_load_slot_is_better_than_a_queue_here() -> None:
    assert choose(candidate("own", loading=2), candidate("a")).instance_id == "a"


def test_elsewhere_the_least_busy_is_taken() -> None:
    assert choose(candidate("a", rpm=500), candidate("b", rpm=5)).instance_id == "b"


def test_where_all_are_full_the_oldest_content_goes() -> None:
    assert choose(full("own", 10**6), full("a", 10**8)) == Placement("a", Reason.OLDEST)


def test_about_as_old_here_is_good_enough() -> None:
    assert choose(full("own", 950_000), full("a", 1_000_000)) == Placement("own", Reason.OLDEST_HERE)


def test_preferred_instances_win_while_they_have_room() -> None:
    requirement = Requirement(preferred=("gpu",))
    gpu = candidate("gpu", labels=frozenset({"gpu"}), rpm=90)
    assert choose(candidate("own"), gpu, requirement=requirement).instance_id == "gpu"
    assert (
        choose(candidate("own"), full("gpu", 10, labels=gpu.labels), requirement=requirement).instance_id
        == "own"
    )


@pytest.mark.parametrize(
    ("candidates", "options", "reason"),
    [
        ([candidate("own")], {"requirement": Requirement(required=("x",))}, Reason.NO_LABELS),
        ([], {}, Reason.NO_LABELS),
        ([candidate("own")], {"excluded": ("own",)}, Reason.TRIED),
        ([candidate("own", ready=False)], {}, Reason.NOT_READY),
        ([candidate("own")], {"size": 101}, Reason.TOO_LARGE),
    ],
)
def test_nowhere_has_a_reason(candidates: list[Candidate], options: dict[str, Any], reason: Reason) -> None:
    assert choose(*candidates, **options) == Placement(None, reason)


def test_a_preferred_full_instance_wins_where_its_content_is_about_as_old() -> None:
    requirement = Requirement(preferred=("gpu",))
    gpu = frozenset({"gpu"})
    near = choose(
        full("a", 1_000_000), full("gpu", 800_000, labels=gpu), full("own", 10), requirement=requirement
    )
    assert near == Placement("gpu", Reason.OLDEST)
    far = choose(full("a", 1_000_000), full("gpu", 700_000, labels=gpu), requirement=requirement)
    assert far == Placement("a", Reason.OLDEST)


def test_another_copy_goes_to_another_zone_and_node() -> None:
    held = candidate("held", node="n1", zone="z1")
    same_node = candidate("own", node="n1", zone="z1")
    same_zone = candidate("a", node="n2", zone="z1", rpm=90)
    other = candidate("b", node="n3", zone="z2", rpm=90)
    kwargs: dict[str, Any] = {"holders": ("held",), "excluded": ("held",)}
    assert choose(held, same_node, same_zone, other, **kwargs).instance_id == "b"
    assert choose(held, same_node, same_zone, **kwargs).instance_id == "a"
    assert choose(held, same_node, **kwargs).instance_id == "own"
    assert choose(held, same_node, other).instance_id == "own", "a first copy need not be far from anything"


def test_where_all_are_full_another_copy_is_spread_too() -> None:
    held = full("held", 10**6, zone="z1")
    assert (
        choose(held, full("a", 10**6, zone="z1"), full("b", 10**6, zone="z2"), holders=("held",)).instance_id
        == "b"
    )


@pytest.mark.parametrize(
    ("unused_ms", "rpm", "chosen"),
    [
        (0, 149, "own"),
        (0, 151, "a"),
        (60_000, 299, "own"),
        (60_000, 301, "a"),
        (-20_000, 111, "a"),
        (10**9, 10**6, "own"),
    ],
)
def test_the_busier_the_model_the_less_busy_its_instance(unused_ms: int, rpm: int, chosen: str) -> None:
    decision = choose(candidate("own", rpm=rpm), candidate("a", rpm=10), last_used=NOW - unused_ms)
    assert decision.instance_id == chosen


def test_instances_about_to_be_replaced_are_the_last_resort() -> None:
    old = candidate("aaaaaa-own", started=NOW - 10**8)
    new = full("bbbbbb-new", 10, started=NOW - 60_000)
    assert choose(old, new) == Placement("bbbbbb-new", Reason.OLDEST)
    assert choose(old, new, excluded=("bbbbbb-new",)).instance_id == "aaaaaa-own"
    assert choose(old, new, size=101).reason is Reason.TOO_LARGE


def test_a_type_that_may_go_anywhere_leaves_room_to_those_that_may_not() -> None:
    constraints = TypeConstraints({"picky": Requirement(required=("big",))})
    big, small = frozenset({"big"}), frozenset[str]()
    candidates = [
        candidate("own", labels=big, reserve=constraints.reserve(big)),
        candidate("small", labels=small, reserve=constraints.reserve(small)),
    ]
    assert choose(*candidates).instance_id == "small"
    assert choose(*candidates, requirement=constraints.of("picky")).instance_id == "own"


@given(
    st.lists(
        st.builds(
            candidate,
            name=st.sampled_from(["own", "aaaaaa-1", "aaaaaa-2", "bbbbbb-1", "cccccc-1"]),
            labels=st.frozensets(st.sampled_from(["x", "y"])),
            used=st.integers(0, 100).map(Resources),
            lru_time=st.sampled_from([0, NOW - 10**7, NOW - 1000, NOW]),
            loading=st.integers(0, 4),
            rpm=st.integers(0, 300),
            ready=st.booleans(),
            zone=st.sampled_from(["", "z1", "z2"]),
            version=st.sampled_from(["", "1.2", "1.10", "odd"]),
            started=st.sampled_from([NOW - 10**8, NOW - 1000]),
        ),
        max_size=5,
        unique_by=lambda candidate: candidate.instance_id,
    ),
    st.sampled_from([(), ("x",), ("x", "y")]),
    st.sampled_from([(), ("x",), ("y",)]),
    st.integers(0, 110),
    st.sets(st.sampled_from(["own", "aaaaaa-1"])),
)
def test_whatever_the_snapshot_the_choice_is_one_that_can_take_the_model(
    candidates: list[Candidate],
    required: tuple[str, ...],
    preferred: tuple[str, ...],
    size: int,
    excluded: set[str],
) -> None:
    requirement = Requirement(required, preferred)
    decision = choose(*candidates, requirement=requirement, size=size, excluded=tuple(excluded))
    possible = [
        each
        for each in candidates
        if allows(requirement, each.labels) and each.ready and each.instance_id not in excluded
    ]
    chosen = next((each for each in possible if each.instance_id == decision.instance_id), None)
    assert (chosen is not None) == (bool(possible) and size <= 100)
    if chosen and decision.reason in {Reason.FREE_HERE, Reason.FREE_MOST}:
        assert Resources(size).fits(chosen.free)
    if chosen:
        here = decision.reason in {Reason.FREE_HERE, Reason.OLDEST_HERE}
        assert here == (decision.instance_id == "own")


Place = Callable[[Wish, Sequence[Candidate]], Placement]


def ours(wish: Wish, candidates: Sequence[Candidate]) -> Placement:
    return place(wish, candidates, own_id="own", now=NOW)


def with_the_own_record_for_all(wish: Wish, candidates: Sequence[Candidate]) -> Placement:
    """The original's rule: every other candidate is measured by this instance's record."""
    own = next(each for each in candidates if each.instance_id == "own")
    return ours(wish, [replace(own, instance_id=each.instance_id) for each in candidates])


def newest_first(wish: Wish, candidates: Sequence[Candidate]) -> Placement:
    """The original's rule: a point in time is compared with a duration, so the newer release always wins."""
    newest = max(each.version for each in candidates)
    return ours(wish, [each for each in candidates if each.version == newest])


def check_the_candidates_own_record_counts(rule: Place) -> None:
    candidates = [full("own", 1_000_000), full("a", 500_000), full("z", 10**8)]
    assert rule(wished(), candidates).instance_id == "z"
    candidates = [full("own", 1_000_000), full("a", 500_000), candidate("z")]
    assert rule(wished(), candidates).instance_id == "z"


def check_a_newer_release_full_of_young_models_is_not_preferred(rule: Place) -> None:
    old = full("old", 10 * YOUNG_MS, version="20260101-1")
    young = full("own", YOUNG_MS // 2, version="20260202-1")
    settled = full("own", 2 * YOUNG_MS, version="20260202-1")
    assert rule(wished(), [old, settled]).instance_id == "own"
    assert rule(wished(), [old, young]).instance_id == "old"


@pytest.mark.parametrize(
    ("check", "defective"),
    [
        (check_the_candidates_own_record_counts, with_the_own_record_for_all),
        (check_a_newer_release_full_of_young_models_is_not_preferred, newest_first),
    ],
)
def test_defects_of_the_original(check: Callable[[Place], None], defective: Place) -> None:
    check(ours)
    with pytest.raises(AssertionError):
        check(defective)


def test_a_newer_release_with_room_is_preferred() -> None:
    old = candidate("own", version="v1.9")
    assert choose(old, candidate("new", version="v1.10")).instance_id == "new"
    assert choose(old, candidate("new", version="unknown")).instance_id == "own"


def default_counts(constraints: TypeConstraints, labels: Sequence[str]) -> int:
    return constraints.reserve(labels)


def default_is_ignored(constraints: TypeConstraints, labels: Sequence[str]) -> int:
    """The original's statistics leave out what `_default` asks for."""
    types = {name: rule for name, rule in constraints.types.items() if name != "_default"}
    return TypeConstraints(types).reserve(labels)


def check_default_counts(rule: Callable[[TypeConstraints, Sequence[str]], int]) -> None:
    constraints = TypeConstraints({"_default": Requirement(required=("big",)), "small": Requirement()})
    assert rule(constraints, ["big"]) < rule(constraints, [])


def test_what_the_default_asks_for_counts() -> None:
    check_default_counts(default_counts)
    with pytest.raises(AssertionError):
        check_default_counts(default_is_ignored)


def preferred_labels_count(requirement: Requirement, labels: frozenset[str]) -> bool:
    own = candidate("own", labels=frozenset(requirement.required))
    return choose(own, candidate("other", labels=labels), requirement=requirement).instance_id == "other"


def preferred_only_without_the_required(requirement: Requirement, labels: frozenset[str]) -> bool:
    """The original's rule, at first: an instance that has what is required is not looked at for more."""
    return not allows(requirement, labels) and preferred_labels_count(requirement, labels)


def check_an_instance_can_have_what_is_required_and_preferred(
    rule: Callable[[Requirement, frozenset[str]], bool],
) -> None:
    assert rule(Requirement(required=("a",), preferred=("gpu",)), frozenset({"a", "gpu"}))


def test_an_instance_with_the_required_labels_can_be_preferred_too() -> None:
    check_an_instance_can_have_what_is_required_and_preferred(preferred_labels_count)
    with pytest.raises(AssertionError):
        check_an_instance_can_have_what_is_required_and_preferred(preferred_only_without_the_required)

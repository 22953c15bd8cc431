"""Placement reads each candidate's own record, and says why it chose."""

from typing import Any

import pytest

from mesh.constraints import ANYWHERE, Requirement
from mesh.placement import Candidate, Placement, Reason, Wish, place
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

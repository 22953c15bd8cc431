"""When copies come and go."""

from collections.abc import Callable
from typing import Any

import pytest

from mesh.placement import Candidate
from mesh.scaling import (
    AGE_FOR_SECOND_MS,
    HOUR_MS,
    MINUTE_MS,
    RECENT_LOAD_MS,
    SECOND_IDLE_MS,
    SETTLED_MS,
    USUAL_TERMS,
    Growth,
    Held,
    More,
    Shrinkage,
    Situation,
    Usage,
    Use,
    fewer,
    more,
    surplus,
)
from store.records import ModelRecord, Resources

NOW = 1_700_000_000_000
THRESHOLD = USUAL_TERMS.threshold
ONE = ModelRecord(instances={"own": NOW - HOUR_MS}, loaded={"own": NOW - HOUR_MS})


def candidate(name: str, used: int = 50, **fields: Any) -> Candidate:
    values: dict[str, Any] = {
        "instance_id": name,
        "labels": frozenset(),
        "capacity": Resources(100),
        "used": Resources(used),
        "lru_time": NOW - HOUR_MS,
        "loading": 0,
        "load_slots": 1,
        "rpm": 0,
        "ready": True,
    }
    return Candidate(**values | fields)


def situation(*names: str, used: int = 50, **fields: Any) -> Situation:
    return Situation([candidate(name, used, **fields) for name in names])


def use(rpm: int = 0, since: int = NOW, last: int = NOW, heavy: int = 0) -> Use:
    return Use(since=since, last=last, rpm=rpm, heavy=heavy)


def grown(use_: Use, record: ModelRecord = ONE, place: Situation | None = None) -> More | None:
    place = place or situation("own", "a", "b")
    return more(use_, record, place, own_id="own", terms=USUAL_TERMS, now=NOW)


# -------------------------------------------------------------------- second copies

Rule = Callable[[int, int], int | None]
"""(milliseconds between two uses, milliseconds in all) -> when the second copy comes."""


def ours(gap: int, end: int) -> int | None:
    usage = Usage()
    for at in range(0, end, gap):
        usage.note("m", 1, NOW + at)
        usage.look(10_000, NOW + at)
        if grown(usage.uses["m"]):
            return at
    return None


def the_originals(gap: int, end: int) -> int | None:
    """Remembers two earlier uses, and moves both on with every use."""
    first = second = None
    for at in range(0, end, gap):
        if any(use is not None and 7 * MINUTE_MS <= at - use <= 40 * MINUTE_MS for use in (first, second)):
            return at
        first, second = second, at
    return None


def check_the_second_copy_comes(rule: Rule, gap: int) -> None:
    came = rule(gap, 3 * HOUR_MS)
    assert came is not None
    assert came <= max(gap, 7 * MINUTE_MS + gap)


@pytest.mark.parametrize("gap", [1_000, 60_000, 3 * MINUTE_MS, 8 * MINUTE_MS, 39 * MINUTE_MS])
def test_a_model_that_is_in_use_over_a_while_gets_a_second_copy(gap: int) -> None:
    check_the_second_copy_comes(ours, gap)


@pytest.mark.parametrize("gap", [1_000, 60_000, 3 * MINUTE_MS])
def test_the_originals_rule_never_gives_one_to_what_is_used_all_the_time(gap: int) -> None:
    with pytest.raises(AssertionError):
        check_the_second_copy_comes(the_originals, gap)


def test_a_model_used_now_and_then_or_for_a_moment_gets_none() -> None:
    assert ours(41 * MINUTE_MS, 10 * HOUR_MS) is None
    assert ours(MINUTE_MS, 6 * MINUTE_MS) is None


def test_a_second_copy_needs_room_or_content_that_nobody_has_used_for_long() -> None:
    lasting = use(since=NOW - HOUR_MS)
    assert grown(lasting, place=situation("own", "a", used=90)) == More(1, Growth.IN_USE, NOW)
    assert grown(lasting, place=situation("own", "a", used=91)) is None
    old = situation("own", "a", used=100, lru_time=NOW - AGE_FOR_SECOND_MS - 1)
    assert grown(lasting, place=old) == More(1, Growth.IN_USE, NOW)


def test_there_is_no_second_copy_where_there_is_one_nobody_else_or_one_too_many() -> None:
    lasting = use(since=NOW - HOUR_MS)
    two = ModelRecord(instances={"own": 1, "a": 1}, loaded={"own": 1, "a": 1})
    assert grown(lasting, two) is None
    assert grown(lasting, two, situation("own", "b")) is not None, "that instance is gone"
    assert grown(lasting, place=situation("own")) is None
    assert grown(lasting, ModelRecord(instances={"own": 1}, max_copies=1)) is None


# -------------------------------------------------------------------- copies by load


def test_copies_are_added_until_each_has_less_than_the_threshold() -> None:
    names = [f"i{number}" for number in range(11)]
    large = situation("own", *names)

    def count(rpm: int, place: Situation) -> int:
        growth = grown(use(rpm), place=place)
        assert growth is not None
        assert growth.reason is Growth.LOAD
        return growth.count

    assert grown(use(THRESHOLD - 1), place=large) is None
    assert count(THRESHOLD, large) == 1
    assert count(2 * THRESHOLD + 1, large) == 2
    assert count(4 * THRESHOLD, large) == 3
    assert count(20 * THRESHOLD, large) == 4, "at most a third of the instances at a time"
    assert count(20 * THRESHOLD, situation("own", "a")) == 1


def test_what_all_copies_have_counts() -> None:
    record = ModelRecord(instances={"own": 1, "i0": 1}, loaded={"own": 1, "i0": 1})
    place = situation("own", *(f"i{number}" for number in range(9)), rpm=THRESHOLD)
    growth = grown(use(2 * THRESHOLD), record, place)
    assert growth is not None
    assert growth.count == 2


def test_where_another_copy_takes_none_of_the_load_no_further_one_is_made() -> None:
    """All requests enter here, and the local copy is preferred: more would only displace other models."""
    record = ModelRecord(instances={"own": 1, "a": 1}, loaded={"own": 1, "a": 1})

    def place(rpm: int) -> Situation:
        return Situation([candidate("own", rpm=20_000), candidate("a", rpm=rpm), candidate("b")])

    assert grown(use(10 * THRESHOLD), record, place(THRESHOLD - 1)) is None
    assert grown(use(10 * THRESHOLD), record, place(THRESHOLD)) is not None


def test_while_another_copy_is_new_no_other_is_added() -> None:
    record = ModelRecord(instances={"own": 1, "a": NOW - RECENT_LOAD_MS + 1}, loaded={"own": 1})
    place = situation("own", "a", "b", rpm=THRESHOLD)
    assert grown(use(THRESHOLD), record, place) is None
    record = ModelRecord(instances={"own": 1, "a": NOW - RECENT_LOAD_MS}, loaded={"own": 1})
    assert grown(use(THRESHOLD), record, place) is not None


def test_instances_that_have_enough_to_do_get_no_copy_because_of_load() -> None:
    place = Situation([candidate("own", rpm=9_000), candidate("a", rpm=8_001), candidate("b", rpm=8_000)])
    growth = grown(use(THRESHOLD), place=place)
    assert growth is not None
    assert growth.excluded == frozenset({"own", "a"})


def test_no_model_gets_more_copies_than_it_may_have() -> None:
    record = ModelRecord(instances={"own": 1}, max_copies=3)
    growth = grown(use(20 * THRESHOLD), record, situation("own", *(f"i{number}" for number in range(20))))
    assert growth is not None
    assert growth.count == 2


# -------------------------------------------------------------------- fewer copies


def held(*others: str, unused: int = HOUR_MS, use_: Use | None = None, **fields: Any) -> Held:
    started = dict.fromkeys(("own", *others), NOW - 2 * HOUR_MS)
    values: dict[str, Any] = {"instances": started, "loaded": started}
    return Held("m", 1, NOW - unused, ModelRecord(**values | fields), use_)


def shrunk(copy: Held, place: Situation | None = None) -> Shrinkage | None:
    place = place or Situation([candidate("own", 100), candidate("a", 96), candidate("b", 96)])
    going = fewer([copy], place, own_id="own", capacity=100, terms=USUAL_TERMS, now=NOW)
    return going[0][1] if going else None


def test_an_idle_second_copy_goes_where_memory_is_short_from_the_worse_of_both_places() -> None:
    assert shrunk(held("a")) is Shrinkage.IDLE
    assert shrunk(held("a", unused=5 * MINUTE_MS)) is None, "a tenth of the age of the oldest content is 6"
    assert shrunk(held("a"), situation("own", "a", used=94)) is None, "there is room"
    assert shrunk(held("a"), Situation([candidate("own", 96), candidate("a", 100)])) is None, "theirs goes"
    assert shrunk(held()) is None, "it is the only one"
    assert shrunk(held("a"), situation("own", "b", used=100)) is None, "that instance is gone"
    assert shrunk(held("a", min_copies=2)) is None


def test_ages_grow_with_the_cache_but_a_second_copy_without_load_has_no_more_than_ten_hours() -> None:
    old = Situation([candidate("own", 100, lru_time=NOW - 900 * HOUR_MS), candidate("a", 96)])
    assert shrunk(held("a", unused=SECOND_IDLE_MS), old) is None
    assert shrunk(held("a", unused=SECOND_IDLE_MS + 1), old) is Shrinkage.IDLE
    heavy = use(heavy=NOW - HOUR_MS)
    assert shrunk(held("a", unused=SECOND_IDLE_MS + 1, use_=heavy), old) is None, "it had much load lately"


def test_a_third_copy_goes_only_when_the_others_can_carry_its_requests() -> None:
    light = use(rpm=THRESHOLD // 2, heavy=NOW - HOUR_MS)
    assert shrunk(held("a", "b", unused=0, use_=light)) is Shrinkage.SURPLUS
    assert shrunk(held("a", "b", unused=0, use_=use(rpm=THRESHOLD))) is None
    assert shrunk(held("a", "b", unused=0, use_=use(heavy=NOW - 9 * MINUTE_MS))) is None
    assert shrunk(held("a", "b", last_unload=NOW - 1_000)) is None, "the load must spread first"
    new = {"own": 1, "a": 1, "b": NOW - SETTLED_MS + 1}
    assert shrunk(held("a", "b", instances=new)) is None
    assert shrunk(held("a", "b", min_copies=3)) is None


def test_ages_of_the_load_scale_with_the_cache() -> None:
    """The original subtracts a time of day from a duration, so that it always waits for five hours."""
    quiet = use(heavy=NOW - 20 * MINUTE_MS)
    assert shrunk(held("a", "b", use_=quiet)) is Shrinkage.SURPLUS
    old = Situation([candidate("own", 100, lru_time=NOW - 30 * HOUR_MS), candidate("a", 96)])
    record = held("a", "b", use_=quiet)
    old_three = Situation([*old.candidates, candidate("b", 96)])
    assert shrunk(record, old_three) is None


def test_little_goes_at_a_time_the_longest_unused_first() -> None:
    started = {"own": 1, "a": 1}
    record = ModelRecord(instances=started, loaded=started)
    copies = [Held(f"m{number}", 3, NOW - HOUR_MS - number, record, None) for number in range(5)]
    place = Situation([candidate("own", 100), candidate("a", 96)])
    going = fewer(copies, place, own_id="own", capacity=100, terms=USUAL_TERMS, now=NOW)
    assert [model_id for model_id, _ in going] == ["m4"]
    going = fewer(copies, place, own_id="own", capacity=200, terms=USUAL_TERMS, now=NOW)
    assert [model_id for model_id, _ in going] == ["m4", "m3", "m2"]


# -------------------------------------------------------------------- an instance that joins


def own_copies(count: int, size: int = 10) -> list[Held]:
    record = ModelRecord(instances={"own": 1}, loaded={"own": 1})
    return [Held(f"m{number}", size, NOW - number, record, None) for number in range(count)]


def test_an_empty_instance_gets_its_share_of_what_is_used() -> None:
    place = Situation([candidate("own", 90), candidate("a", 90), candidate("new", 0)])
    moves = surplus(own_copies(9), place, own_id="own", now=NOW)
    assert moves.targets == {"new"}
    assert moves.models == ("m0", "m2", "m4"), "all have 60 then, and each some of what is used most"


def test_nothing_moves_between_instances_that_are_about_as_full() -> None:
    place = Situation([candidate("own", 90), candidate("a", 75)])
    assert surplus(own_copies(9), place, own_id="own", now=NOW).models == ()
    place = Situation([candidate("own", 60), candidate("a", 90), candidate("new", 0)])
    assert len(surplus(own_copies(6), place, own_id="own", now=NOW).models) == 1
    assert surplus(own_copies(3), place, own_id="a", now=NOW).targets == {"new"}


def test_nothing_moves_to_an_instance_that_an_upgrade_is_about_to_replace() -> None:
    old, new = "5f6d7a-aaaaa", "8b9c1d-bbbbb"
    place = Situation(
        [candidate(new, 90, started=NOW - 1_000), candidate(old, 0, started=NOW - HOUR_MS)],
    )
    assert surplus(own_copies(9), place, own_id=new, now=NOW).models == ()

"""The cache never promises memory twice, and evicts only what it must."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from mesh.cache import Cache, Phase, Plan, Refusal, Standing
from store.records import NOTHING, Resources


def size(value: int) -> Resources:
    return Resources(value)


def loaded(cache: Cache, model_id: str, bytes_: int, last_used: int) -> None:
    plan = cache.plan(model_id, size(bytes_), last_used)
    assert isinstance(plan, Plan)
    cache.admit(plan)
    for victim in plan.victims:
        cache.freed(victim)
    cache.start(model_id)
    cache.finish(model_id, size(bytes_))


def planned(cache: Cache, bytes_: int, last_used: int = 10**9) -> Plan | Refusal:
    return cache.plan("new", size(bytes_), last_used)


def test_what_fits_evicts_nothing() -> None:
    cache = Cache(size(100))
    loaded(cache, "a", 60, 1)
    assert planned(cache, 40) == Plan("new", size(40), 10**9)


def test_the_oldest_go_first_and_only_as_many_as_needed() -> None:
    cache = Cache(size(100))
    for number, name in enumerate("cab"):
        loaded(cache, name, 30, number)
    plan = planned(cache, 40)
    assert isinstance(plan, Plan)
    assert plan.victims == ("c",)


PINNED = Standing(pinned=True)


def test_what_is_pinned_is_never_evicted() -> None:
    cache = Cache(size(100))
    loaded(cache, "pinned", 40, 1)
    loaded(cache, "other", 60, 2)
    cache.stand("pinned", PINNED)
    plan = planned(cache, 50)
    assert isinstance(plan, Plan)
    assert plan.victims == ("other",)
    assert planned(cache, 61) is Refusal.PINNED
    cache.stand("pinned", Standing())
    plan = planned(cache, 61)
    assert isinstance(plan, Plan)
    assert plan.victims == ("pinned", "other")


def test_a_lower_priority_goes_first_and_takes_nothing_from_a_higher_one() -> None:
    cache = Cache(size(100))
    for name, last_used, priority in (("old", 1, 5), ("new", 9, 0), ("newer", 10, 0)):
        loaded(cache, name, 30, last_used)
        cache.stand(name, Standing(priority=priority))
    plan = planned(cache, 40)
    assert isinstance(plan, Plan)
    assert plan.victims == ("new",)
    assert planned(cache, 80) is Refusal.TOO_OLD
    plan = cache.plan("high", size(80), 0, Standing(priority=6))
    assert isinstance(plan, Plan)
    assert plan.victims == ("new", "newer", "old")
    assert [copy.model_id for copy in cache.in_order()] == ["new", "newer", "old"]


def test_a_priority_that_falls_counts_at_once() -> None:
    cache = Cache(size(90))
    for name, last_used in (("a", 1), ("b", 2), ("c", 3)):
        loaded(cache, name, 30, last_used)
    cache.stand("c", Standing(priority=-1))
    plan = planned(cache, 30)
    assert isinstance(plan, Plan)
    assert plan.victims == ("c",)


def test_an_old_model_too_small_to_matter_stays() -> None:
    cache = Cache(size(100))
    loaded(cache, "small", 10, 1)
    loaded(cache, "large", 60, 2)
    loaded(cache, "young", 30, 3)
    plan = planned(cache, 50)
    assert isinstance(plan, Plan)
    assert plan.victims == ("large",)


def test_many_models_of_one_millisecond_are_all_known() -> None:
    cache = Cache(size(100))
    for number in range(10):
        loaded(cache, f"m{number}", 10, 7)
    plan = planned(cache, 100)
    assert isinstance(plan, Plan)
    assert sorted(plan.victims) == [f"m{number}" for number in range(10)]


def test_a_use_makes_a_model_younger() -> None:
    cache = Cache(size(100))
    loaded(cache, "a", 50, 1)
    loaded(cache, "b", 50, 2)
    cache.touch("a", 3)
    cache.touch("a", 2)
    plan = planned(cache, 10)
    assert isinstance(plan, Plan)
    assert plan.victims == ("b",)
    assert cache.oldest() == 2


def test_what_can_never_fit_is_refused_before_anything_is_evicted() -> None:
    cache = Cache(size(100))
    loaded(cache, "a", 50, 1)
    assert planned(cache, 101) is Refusal.TOO_LARGE
    assert cache.get("a") is not None


def test_a_newcomer_does_not_displace_what_was_used_more_recently() -> None:
    cache = Cache(size(100))
    loaded(cache, "a", 50, 1)
    loaded(cache, "b", 50, 5)
    assert planned(cache, 60, last_used=3) is Refusal.TOO_OLD
    assert len(cache) == 2


def test_what_is_being_loaded_is_not_evicted() -> None:
    cache = Cache(size(100))
    plan = planned(cache, 80)
    assert isinstance(plan, Plan)
    cache.admit(plan)
    cache.start("new")
    assert cache.plan("other", size(30), 10**9) is Refusal.BUSY


def test_memory_being_freed_is_not_free() -> None:
    cache = Cache(size(100))
    loaded(cache, "a", 80, 1)
    plan = planned(cache, 50)
    assert isinstance(plan, Plan)
    cache.admit(plan)
    assert not cache.can_start("new")
    cache.freed("a")
    assert cache.can_start("new")


def test_a_model_larger_than_thought_pushes_out_older_ones_but_not_itself() -> None:
    cache = Cache(size(100))
    loaded(cache, "a", 30, 1)
    loaded(cache, "b", 30, 2)
    loaded(cache, "c", 30, 0)
    assert cache.resize("c", size(60)) == ("a",)
    assert cache.get("c") is not None


def test_a_model_larger_than_everything_goes_alone() -> None:
    cache = Cache(size(100))
    loaded(cache, "a", 30, 1)
    loaded(cache, "b", 30, 2)
    assert cache.resize("b", size(101)) == ("b",)


def test_memory_that_is_not_given_back_counts_as_lost_until_it_is() -> None:
    cache = Cache(size(100))
    loaded(cache, "a", 40, 1)
    loaded(cache, "b", 60, 2)
    cache.release("a")
    assert planned(cache, 40) == Plan("new", size(40), 10**9)
    cache.lose("a")
    cache.lose("a")
    assert planned(cache, 40) == Plan("new", size(40), 10**9, ("b",))
    cache.freed("a")
    assert (cache.usable, cache.in_use) == (size(100), size(60))
    assert planned(cache, 40) == Plan("new", size(40), 10**9)


def test_a_server_that_starts_anew_is_empty_and_promises_stay() -> None:
    cache = Cache(size(100))
    loaded(cache, "a", 60, 1)
    plan = planned(cache, 60)
    assert isinstance(plan, Plan)
    cache.admit(plan)
    cache.reset(size(200))
    assert cache.in_use == NOTHING
    assert cache.promised == size(60)
    assert cache.can_start("new")


class CacheMachine(RuleBasedStateMachine):
    """Any order of operations keeps both rules; the sums are those of the copies."""

    models: Bundle[str] = Bundle("models")
    capacity = 100

    def __init__(self) -> None:
        super().__init__()
        self.cache = Cache(size(self.capacity))
        self.freeing: dict[str, int] = {}

    @rule(target=models, name=st.sampled_from([f"m{number}" for number in range(8)]))
    def name(self, name: str) -> str:
        return name

    @rule(model=models, bytes_=st.integers(1, 120), last_used=st.integers(0, 50))
    def admit(self, model: str, bytes_: int, last_used: int) -> None:
        if self.cache.get(model) or model in self.freeing:
            return
        plan = self.cache.plan(model, size(bytes_), last_used)
        if isinstance(plan, Refusal):
            assert plan is not Refusal.TOO_LARGE or bytes_ > self.capacity
            return
        victims = [self.cache.get(victim) for victim in plan.victims]
        room = self.cache.free.memory
        gained = [victim.size.memory for victim in victims if victim]
        assert room + sum(gained) >= bytes_
        assert all(room + sum(gained) - spared < bytes_ for spared in gained), "none goes without need"
        assert not any(victim.held for victim in victims if victim)
        ages = [victim.last_used for victim in victims if victim]
        assert ages == sorted(ages)
        self.freeing |= {victim.model_id: victim.size.memory for victim in victims if victim}
        self.cache.admit(plan)

    @rule(model=models)
    def start(self, model: str) -> None:
        copy = self.cache.get(model)
        if copy and copy.phase is Phase.WAITING and self.cache.can_start(model):
            self.cache.start(model)

    @rule(model=models)
    def finish(self, model: str) -> None:
        copy = self.cache.get(model)
        if copy and copy.phase is Phase.LOADING:
            assert self.cache.finish(model, copy.size) == ()

    @rule(model=models, last_used=st.integers(0, 100))
    def touch(self, model: str, last_used: int) -> None:
        self.cache.touch(model, last_used)

    @rule(model=models, held=st.booleans())
    def hold(self, model: str, held: bool) -> None:  # noqa: FBT001
        if held:
            self.cache.hold(model)
        else:
            self.cache.settle(model)

    @rule(model=models)
    def release(self, model: str) -> None:
        if copy := self.cache.get(model):
            if copy.phase is not Phase.WAITING:
                self.freeing[model] = copy.size.memory
            self.cache.release(model)

    @rule(model=models)
    def freed(self, model: str) -> None:
        self.freeing.pop(model, None)
        self.cache.freed(model)

    @rule()
    def restart(self) -> None:
        self.freeing.clear()
        self.cache.reset(size(self.capacity))

    @invariant()
    def rules_hold(self) -> None:
        copies = list(self.cache.copies())
        started = [copy.size.memory for copy in copies if copy.phase is not Phase.WAITING]
        assert self.cache.promised.memory == sum(copy.size.memory for copy in copies) <= self.capacity
        assert self.cache.in_use.memory == sum(started) + sum(self.freeing.values()) <= self.capacity
        ages = [copy.last_used for copy in copies if copy.phase is Phase.LOADED and not copy.held]
        assert self.cache.oldest() == min(ages, default=0)


CacheMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestCacheMachine = CacheMachine.TestCase


@pytest.mark.parametrize("bytes_", [0, 100])
def test_the_whole_capacity_can_be_used(bytes_: int) -> None:
    assert isinstance(planned(Cache(size(100)), bytes_), Plan)


def test_copies_that_have_gone_are_forgotten_where_nothing_is_ever_evicted() -> None:
    cache = Cache(Resources(100))
    for number in range(1_000):
        model_id = f"m{number}" if number else "oldest"
        cache.admit(Plan(model_id, Resources(10), number))
        cache.start(model_id)
        cache.finish(model_id, Resources(10))
        if number:
            cache.release(model_id)
            cache.freed(model_id)
        assert cache.oldest() == 0
        assert len(cache._order) < 100
    assert cache.plan("next", Resources(100), 2_000) == Plan("next", Resources(100), 2_000, ("oldest",))

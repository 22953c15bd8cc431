"""Whose turn it is: requests before background loads, a bounded line, and memory that is promised once."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mesh.admission import MAX_WAITING, SPARE_ENTRIES, Admission
from mesh.cache import Cache, Phase, Refusal
from store.records import NOTHING, Resources


def admission(capacity: int = 100, slots: int = 1) -> Admission:
    line = Admission(Cache(Resources(capacity)))
    line.slots = slots
    return line


def stand(
    line: Admission, model_id: str, last_used: int = 1, *, urgent: bool = False, size: int = 10
) -> None:
    line.take(model_id, last_used, urgent=urgent)
    line.stand(model_id, Resources(size))


def serve(line: Admission, now: int = 0) -> str:
    """Loads the next one; returns which."""
    (model_id,) = line.step(now).start
    for victim in line.loaded(model_id, line.cache.get(model_id).size):  # type: ignore[union-attr]
        line.cache.freed(victim)
    line.leave(model_id, now + 100)
    return model_id


def test_background_loads_go_by_the_last_use_of_their_models() -> None:
    line = admission()
    for number, name in enumerate("bca"):
        stand(line, name, number)
    assert [serve(line) for _ in range(3)] == ["a", "c", "b"]


def test_a_requests_load_overtakes_and_promotes() -> None:
    line = admission()
    for name in ("first", "second"):
        stand(line, name, 5)
    stand(line, "urgent", 1, urgent=True)
    assert line.promote("second", 6)
    assert not line.promote("second", 7), "it is promoted once"
    assert [serve(line) for _ in range(3)] == ["urgent", "second", "first"]


def test_no_more_loads_at_a_time_than_the_server_takes() -> None:
    line = admission(slots=3)
    for name in "abcde":
        stand(line, name)
    assert len(line.step(0).start) == 3
    assert line.step(0).start == []


def test_without_a_server_nothing_begins() -> None:
    line = admission(slots=0)
    stand(line, "a")
    assert line.step(0).start == []


def test_an_empty_line_refuses_nobody_however_little_time_there_is() -> None:
    assert admission().refusal(urgent=True, patience_ms=-1) is None


def test_a_full_line_refuses_and_background_loads_do_not_fill_that_of_requests() -> None:
    line = admission()
    for number in range(MAX_WAITING):
        line.take(f"m{number}", 1, urgent=False)
    assert line.refusal(urgent=False, patience_ms=None) is Refusal.QUEUE_FULL
    assert line.refusal(urgent=True, patience_ms=None) is None
    for number in range(MAX_WAITING):
        line.take(f"u{number}", 1, urgent=True)
    assert line.refusal(urgent=True, patience_ms=None) is Refusal.QUEUE_FULL


def test_who_would_wait_for_longer_than_the_deadline_is_refused_at_once() -> None:
    line = admission(capacity=10_000, slots=2)
    stand(line, "known", urgent=True)
    serve(line)  # took 100 ms
    for number in range(12):
        stand(line, f"m{number}", urgent=True)
    line.step(0)
    assert line.wait_ms(urgent=True) == (10 + 1) * 100 // 2
    assert line.refusal(urgent=True, patience_ms=550) is None
    assert line.refusal(urgent=True, patience_ms=549) is Refusal.TOO_LATE


def test_background_loads_in_line_do_not_make_a_request_wait() -> None:
    line = admission(slots=1)
    stand(line, "known")
    serve(line)
    for number in range(50):
        stand(line, f"m{number}")
    line.step(0)
    assert line.wait_ms(urgent=True) == 100, "only the load that runs comes first"
    assert line.wait_ms(urgent=False) == 5_000


def test_what_cannot_fit_is_refused_and_nothing_is_evicted() -> None:
    line = admission()
    stand(line, "a", size=90)
    serve(line)
    stand(line, "huge", size=101, urgent=True)
    steps = line.step(0)
    assert (steps.refused, steps.evict) == ([("huge", Refusal.TOO_LARGE)], [])
    assert not line.leave("huge", 0)


def test_a_background_load_does_not_displace_what_was_used_since_but_a_request_does() -> None:
    line = admission()
    stand(line, "young", 10, size=90)
    serve(line)
    stand(line, "old", 5, size=90)
    assert line.step(0).refused == [("old", Refusal.TOO_OLD)]
    line.leave("old", 0)
    stand(line, "old", 5, size=90, urgent=True)
    assert line.step(0).evict == ["young"]


def test_a_load_waits_until_its_memory_is_really_free() -> None:
    line = admission()
    stand(line, "a", size=90)
    serve(line)
    stand(line, "b", 2, size=90)
    steps = line.step(0)
    assert (steps.evict, steps.start, steps.waiting) == (["a"], [], ["b"])
    line.cache.freed("a")
    assert line.step(0).start == ["b"]


def test_a_load_whose_promise_was_eaten_by_a_larger_model_gets_it_back() -> None:
    """The larger model goes again, as soon as it may, rather than that both wait for ever."""
    line = admission(slots=2)
    stand(line, "gone", 1, size=60)
    serve(line)
    stand(line, "a", 2, size=40, urgent=True)
    stand(line, "b", 3, size=60, urgent=True)
    steps = line.step(0)
    assert (steps.evict, steps.start, steps.waiting) == (["gone"], ["a"], ["b"])
    assert line.loaded("a", Resources(70)) == ()
    line.leave("a", 0)
    line.cache.freed("gone")
    steps = line.step(0)
    assert (steps.evict, steps.waiting) == (["a"], ["b"])
    line.cache.freed("a")
    assert line.step(0).start == ["b"]


def test_a_model_larger_than_the_whole_capacity_goes_and_takes_nobody_along() -> None:
    line = admission(slots=2)
    stand(line, "a", 1, size=50)
    serve(line)
    stand(line, "b", 2, size=50)
    line.step(0)
    assert line.loaded("b", Resources(101)) == ("b",)
    assert not line.leave("b", 0)
    line.cache.freed("b")
    assert line.cache.in_use == line.cache.promised == Resources(50)


def test_memory_that_the_server_keeps_is_planned_without_until_it_is_given_back() -> None:
    line = admission()
    stand(line, "a", 1, size=60)
    serve(line)
    line.cache.release("a")
    line.cache.lose("a")
    stand(line, "b", 2, size=50, urgent=True)
    assert line.step(0).refused == [("b", Refusal.BUSY)]
    line.leave("b", 0)
    stand(line, "c", 3, size=40, urgent=True)
    assert serve(line) == "c"
    line.cache.freed("a")
    stand(line, "b", 4, size=50, urgent=True)
    assert serve(line) == "b"


SIZES = st.sampled_from([10, 30, 40, 50, 60, 90, 101])


class AdmissionMachine(RuleBasedStateMachine):
    """Whatever comes, grows, fails, is lost or is given up: nothing is promised twice, leaked, or stuck."""

    capacity = 100
    slots = 2

    def __init__(self) -> None:
        super().__init__()
        self.line = admission(self.capacity, self.slots)
        self.freeing: dict[str, int] = {}
        self.lost: set[str] = set()
        self.loading: set[str] = set()
        self.tickets: set[str] = set()
        self.now = 0

    def names(self, number: int) -> str:
        return f"m{number}"

    def goes(self, model_id: str, size: int) -> None:
        self.freeing[model_id] = self.freeing.get(model_id, 0) + size

    def step(self) -> None:
        self.now += 1
        before = {copy.model_id: copy.size.memory for copy in self.line.cache.copies()}
        steps = self.line.step(self.now)
        for model_id in steps.evict:
            self.goes(model_id, before[model_id])
        for model_id, _ in steps.refused:
            self.line.leave(model_id, self.now)
            self.tickets.discard(model_id)
        for model_id in steps.start:
            assert model_id not in self.loading
            assert model_id not in self.freeing, "one operation of a model at a time"
            self.loading.add(model_id)
        if steps.start:
            assert self.line.cache.in_use.memory <= self.capacity, "a load starts in memory that is free"

    @rule(number=st.integers(0, 7), size=SIZES, urgent=st.booleans(), used=st.integers(0, 50))
    def come(self, number: int, size: int, urgent: bool, used: int) -> None:  # noqa: FBT001
        name = self.names(number)
        if name in self.tickets:
            self.line.promote(name, used)
        elif not self.line.cache.get(name) and name not in self.freeing:
            self.tickets.add(name)
            self.line.take(name, used, urgent=urgent)
            self.line.stand(name, Resources(size))
        self.step()

    @precondition(lambda self: self.loading)
    @rule(data=st.data(), actual=st.none() | SIZES)
    def end(self, data: st.DataObject, actual: int | None) -> None:
        name = data.draw(st.sampled_from(sorted(self.loading)))
        size = actual or self.line.cache.get(name).size.memory  # type: ignore[union-attr]
        self.loading.discard(name)
        before = {copy.model_id: copy.size.memory for copy in self.line.cache.copies()} | {name: size}
        for victim in self.line.loaded(name, Resources(size)):
            self.goes(victim, before[victim])
        assert not self.line.leave(name, self.now), "a good load is not unloaded"
        self.tickets.discard(name)
        self.step()

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.tickets)))
        copy = self.line.cache.get(name)
        unload = self.line.leave(name, self.now)
        assert unload == (name in self.loading), "what the server was asked for ends in an unload"
        if unload and copy:
            self.goes(name, copy.size.memory)
        self.loading.discard(name)
        self.tickets.discard(name)
        self.step()

    @precondition(lambda self: self.freeing)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.freeing)))
        del self.freeing[name]
        self.lost.discard(name)
        self.line.cache.freed(name)
        self.step()

    @precondition(lambda self: self.freeing)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.freeing)))
        self.lost.add(name)
        self.line.cache.lose(name)
        self.step()

    @rule(number=st.integers(0, 7), last_used=st.integers(0, 100))
    def touch(self, number: int, last_used: int) -> None:
        self.line.cache.touch(self.names(number), last_used)

    @precondition(lambda self: self.now > 20)
    @rule()
    def restart(self) -> None:
        for name in sorted(self.tickets):
            self.line.leave(name, self.now)
        self.line.cache.reset(Resources(self.capacity))
        self.now = 0
        self.tickets.clear()
        self.freeing.clear()
        self.loading.clear()
        self.lost.clear()

    @invariant()
    def sums_are_those_of_the_copies(self) -> None:
        cache = self.line.cache
        copies = list(cache.copies())
        started = sum(copy.size.memory for copy in copies if copy.phase is not Phase.WAITING)
        assert cache.promised.memory == sum(copy.size.memory for copy in copies) >= 0
        assert cache.in_use.memory == started + sum(self.freeing.values()) >= 0
        lost = sum(self.freeing[name] for name in self.lost)
        assert cache.usable.memory == max(0, self.capacity - lost)
        assert self.line.busy <= self.slots
        assert {copy.model_id for copy in copies if copy.phase is Phase.LOADING} == self.loading
        assert len(self.line) == len(self.tickets)

    @invariant()
    def promises_can_be_kept(self) -> None:
        """A model that grew, or memory that is lost, takes no promise away for longer than it must."""
        if not self.loading and not self.line.busy:
            assert self.line.cache.promised.fits(self.line.cache.usable)

    @invariant()
    def nothing_waits_for_ever(self) -> None:
        """Where nothing is under way that could change things, nothing waits either."""
        if not self.loading and not self.freeing:
            assert len(self.line) == 0
            assert self.line.cache.promised.memory <= self.capacity

    def teardown(self) -> None:
        for name in list(self.freeing):
            self.line.cache.freed(name)
        for name in sorted(self.tickets):
            if self.line.leave(name, self.now):
                self.line.cache.freed(name)
        for copy in list(self.line.cache.copies()):
            self.line.cache.release(copy.model_id)
            self.line.cache.freed(copy.model_id)
        assert self.line.cache.promised == self.line.cache.in_use == NOTHING
        assert self.line.wait_ms(urgent=True) == 0


AdmissionMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=60, deadline=None)
TestAdmissionMachine = AdmissionMachine.TestCase


def test_a_line_that_begins_with_requests_for_ever_keeps_nothing_of_who_has_left() -> None:
    line = admission(slots=1)
    stand(line, "runs", urgent=True)
    line.step(0)
    for number in range(10_000):
        stand(line, f"urgent{number}", number, urgent=True)
        stand(line, f"background{number}", number)
        line.step(0)
        line.leave(f"background{number}", 0)
        if number:
            line.leave(f"urgent{number - 1}", 0)
    assert len(line._line) <= 2 * line.standing + SPARE_ENTRIES + 1
    line.leave("runs", 0)
    assert line.step(0).start == ["urgent9999"]

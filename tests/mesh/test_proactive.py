"""What is loaded before anybody asks: what fits in free room, and what is clearly newer than the oldest."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import proactive
from mesh.constraints import Requirement, TypeConstraints
from mesh.proactive import Load, Reason
from store.records import InstanceRecord, ModelRecord, Resources

NOW = 1_800_000_000_000
HOUR = 3_600_000
FREE = TypeConstraints()
Models = Iterable[tuple[str, ModelRecord]]
Plan = Callable[[Models, Mapping[str, InstanceRecord], TypeConstraints, int], list[Load]]


def instance(used: int = 0, *, capacity: int = 8_000, oldest: int = 0, **fields: object) -> InstanceRecord:
    values = {
        "capacity": Resources(capacity),
        "used": Resources(used),
        "default_size": Resources(100),
        "load_slots": 2,
        "count": used // 100,
        "lru_time": oldest,
        "ready": True,
    }
    return InstanceRecord(**(values | fields))  # type: ignore[arg-type]


def model(last_used: int = NOW - HOUR, size: int = 100, **fields: object) -> ModelRecord:
    return ModelRecord(type="t", size=Resources(size), last_used=last_used, **fields)  # type: ignore[arg-type]


def ids(loads: Iterable[Load]) -> list[str]:
    return [load.model_id for load in loads]


def keyed_by_time(
    models: Models, instances: Mapping[str, InstanceRecord], constraints: TypeConstraints, now: int
) -> list[Load]:
    """The original's ordered set of candidates, which holds one for each last use."""
    by_time = {record.last_used: (model_id, record) for model_id, record in models}
    return proactive.plan(by_time.values(), instances, constraints, now)


def only_with_free_room(
    models: Models, instances: Mapping[str, InstanceRecord], constraints: TypeConstraints, now: int
) -> list[Load]:
    """The original: nothing at all where the free room of all instances that are not full is 0."""
    free = sum(record.capacity.memory - record.used.memory for record in instances.values())
    return proactive.plan(models, instances, constraints, now) if free else []


@pytest.mark.parametrize(
    ("plan", "outcome"),
    [
        pytest.param(proactive.plan, nullcontext(), id="ours"),
        pytest.param(keyed_by_time, pytest.raises(AssertionError), id="original"),
    ],
)
def test_models_of_the_same_millisecond_are_all_loaded(
    plan: Plan, outcome: AbstractContextManager[object]
) -> None:
    """[defect] Of models that were registered together the original loads one each time."""
    models = [(f"m{number}", model()) for number in range(10)]
    with outcome:
        assert ids(plan(models, {"one": instance()}, FREE, NOW)) == [f"m{number}" for number in range(10)]


@pytest.mark.parametrize(
    ("plan", "outcome"),
    [
        pytest.param(proactive.plan, nullcontext(), id="ours"),
        pytest.param(only_with_free_room, pytest.raises(AssertionError), id="original"),
    ],
)
def test_full_instances_take_what_is_clearly_newer_than_their_oldest(
    plan: Plan, outcome: AbstractContextManager[object]
) -> None:
    """[defect] After an instance was lost, the original leaves the others with old content."""
    full = {"one": instance(8_000, oldest=NOW - 3 * HOUR), "two": instance(8_000, oldest=NOW - 2 * HOUR)}
    models = [("newer", model(NOW - HOUR)), ("not clearly", model(NOW - 2 * HOUR - 1)), ("old", model(1))]
    with outcome:
        assert plan(models, full, FREE, NOW) == [Load("newer", NOW - HOUR, Reason.NEWER)]


def test_at_most_a_twentieth_is_replaced() -> None:
    full = {"one": instance(8_000, oldest=NOW - 9 * HOUR)}
    models = [(f"m{number}", model(NOW - number)) for number in range(10)]
    assert ids(proactive.plan(models, full, FREE, NOW)) == ["m0", "m1", "m2", "m3"]


def test_nothing_young_is_replaced() -> None:
    full = {"one": instance(8_000, oldest=NOW - 10 * 60_000)}
    assert proactive.plan([("m", model(NOW))], full, FREE, NOW) == []


def test_half_of_the_room_is_filled_the_most_recently_used_first() -> None:
    models = [(f"m{number}", model(NOW - number, 1_000)) for number in range(9)]
    loads = proactive.plan(models, {"one": instance(1_000, count=1)}, FREE, NOW)
    assert loads == [Load(f"m{number}", NOW - number, Reason.FREE_ROOM) for number in range(3)]


def test_a_queue_of_loads_is_not_made_longer_than_the_instance_can_do() -> None:
    models = [(f"m{number:03}", model(size=1)) for number in range(200)]
    assert len(proactive.plan(models, {"one": instance(load_slots=1, loading=20)}, FREE, NOW)) == 30


def test_models_go_only_where_their_type_may() -> None:
    constraints = TypeConstraints({"t": Requirement(required=("gpu",))})
    instances = {"cpu": instance(), "gpu": instance(8_000, labels=("gpu",), oldest=NOW - 1)}
    assert proactive.plan([("m", model())], instances, constraints, NOW) == []
    instances["gpu"] = instance(labels=("gpu",))
    assert ids(proactive.plan([("m", model())], instances, constraints, NOW)) == ["m"]


def listed_types_only(
    models: Models, instances: Mapping[str, InstanceRecord], constraints: TypeConstraints, now: int
) -> list[Load]:
    """The original's partitions, which know nothing of `_default`."""
    listed = {name: requirement for name, requirement in constraints.types.items() if name != "_default"}
    return proactive.plan(models, instances, TypeConstraints(listed), now)


@pytest.mark.parametrize(
    ("plan", "outcome"),
    [
        pytest.param(proactive.plan, nullcontext(), id="ours"),
        pytest.param(listed_types_only, pytest.raises(AssertionError), id="original"),
    ],
)
def test_types_that_are_not_listed_are_bound_by_the_default(
    plan: Plan, outcome: AbstractContextManager[object]
) -> None:
    """[defect] The original would load them, in vain, wherever there is room."""
    constraints = TypeConstraints({"_default": Requirement(required=("_no_runtime",))})
    with outcome:
        assert plan([("m", model())], {"one": instance()}, constraints, NOW) == []


@pytest.mark.parametrize(
    "record",
    [
        model(instances={"one": 1}, loaded={"one": 1}),
        model(instances={"one": 1}),
        model(failed={"one": NOW - 1}),
        model(failed={"one": 1, "two": 1}),
    ],
)
def test_what_has_a_copy_or_failed_lately_or_often_is_left_alone(record: ModelRecord) -> None:
    instances = {"one": instance(), "two": instance()}
    assert proactive.plan([("m", record)], instances, FREE, NOW) == []


def test_copies_and_failures_of_vanished_instances_do_not_count() -> None:
    record = model(instances={"gone": 1}, loaded={"gone": 1}, failed={"gone too": NOW})
    assert ids(proactive.plan([("m", record)], {"one": instance()}, FREE, NOW)) == ["m"]


def test_instances_that_leave_or_are_not_ready_get_nothing() -> None:
    assert proactive.plan([("m", model())], {"one": instance(shutdown=True)}, FREE, NOW) == []
    assert proactive.plan([("m", model())], {"one": instance(ready=False)}, FREE, NOW) == []


@given(
    sizes=st.lists(st.integers(1, 900), max_size=60),
    used=st.lists(st.integers(0, 8_000), min_size=1, max_size=4),
)
def test_what_is_loaded_for_free_fits_and_leaves_an_eighth(sizes: list[int], used: list[int]) -> None:
    instances = {f"i{number}": instance(bytes_, oldest=NOW - HOUR) for number, bytes_ in enumerate(used)}
    models = [(f"m{number}", model(NOW - number, size)) for number, size in enumerate(sizes)]
    loads = proactive.plan(models, instances, FREE, NOW)
    by_id = dict(models)
    size = sum(by_id[load.model_id].size.memory for load in loads if load.reason is Reason.FREE_ROOM)  # type: ignore[union-attr]
    assert size <= sum(max(0, 7_000 - bytes_) // 2 for bytes_ in used)
    assert len(set(ids(loads))) == len(loads)

"""A new instance that cannot load what others serve stays out of service."""

import pytest

from mesh.failfast import LEAST_LOADS, OLD_FAILURE_MS, FailFast, FailFastTerms
from store.records import ModelRecord
from tests.mesh.conftest import Mesh
from tests.mesh.test_node import failure, register
from tests.mesh.test_scaler import loaded
from tests.store.waiting import until

NOW, TIMEOUT = 1_700_000_000_000, 90_000
ELSEWHERE = ModelRecord(loaded={"other": NOW - TIMEOUT})


def fresh(*, enabled: bool = True, live: bool = True) -> FailFast:
    return FailFast(FailFastTerms(enabled=enabled), NOW, "own", lambda _: live)


def failed(rule: FailFast, number: int, record: ModelRecord = ELSEWHERE, *, after: int = 0) -> bool:
    return rule.failed(f"m{number}", record, under_way=0, load_timeout_ms=TIMEOUT, now=NOW + after)


def test_the_third_model_that_others_serve_decides_it() -> None:
    rule = fresh()
    assert [failed(rule, number) for number in range(4)] == [False, False, True, False]
    assert rule.verdict == "3 models that others serve failed to load here after the start"


@pytest.mark.parametrize(
    ("rule", "record", "after"),
    [
        (fresh(enabled=False), ELSEWHERE, 0),
        (fresh(), ELSEWHERE, 180_001),
        (fresh(live=False), ELSEWHERE, 0),
        (fresh(), ModelRecord(loaded={"other": NOW - TIMEOUT + 1}), 0),
        (fresh(), ModelRecord(loaded={"own": 1}), 0),
    ],
)
def test_it_is_decided_only_by_models_that_others_serve_and_while_the_instance_is_new(
    rule: FailFast, record: ModelRecord, after: int
) -> None:
    assert not any(failed(rule, number, record, after=after) for number in range(LEAST_LOADS))


def test_one_model_counts_once() -> None:
    rule = fresh()
    assert not any(failed(rule, 1) for _ in range(10))


def test_more_failures_than_not_of_many_loads_decide_it_too() -> None:
    rule = fresh()
    for _ in range(10):
        rule.loaded()
    outcomes = [failed(rule, number, ModelRecord()) for number in range(11)]
    assert outcomes == [False] * 10 + [True]
    rule = fresh()
    broken = ModelRecord(failed={"other": NOW - OLD_FAILURE_MS - 1})
    assert not any(failed(rule, number, broken) for number in range(30))


async def test_an_instance_that_is_not_fit_is_not_ready_and_says_why(mesh: Mesh) -> None:
    one = await mesh.add("one")
    for name in ("a", "b", "c"):
        await loaded(one, name)
    mesh.clock.ahead_ms += one.runtime.load_timeout_ms
    two = await mesh.add("two")
    for name in ("a", "b", "c"):
        await until(lambda name=name: name in two.bytes.models)
        two.runtime.refused.add(name)
        with pytest.raises(Exception, match="refused"):
            await two.node.ensurer.load_here(name, last_used=mesh.clock(), urgent=True)
    assert not two.bytes.ready
    assert two.node.readiness.obstacle == "3 models that others serve failed to load here after the start"
    await register(one, "d", "FAIL_broken")
    await failure(one, "d")
    assert one.bytes.ready, "nobody serves that one"

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.workloads import PodFacts, plan_rollout, resolve_bounds, template_hash

pods = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=8).map(
    lambda flags: [
        PodFacts(f"p{index}", current, ready, f"2026-01-01T00:00:{index:02}Z")
        for index, (current, ready) in enumerate(flags)
    ],
)
bounds = st.tuples(st.integers(0, 3), st.integers(0, 3)).filter(any)


@given(pods, st.integers(0, 5), bounds)
def test_a_step_never_breaks_the_bounds(
    present: list[PodFacts], replicas: int, limits: tuple[int, int]
) -> None:
    surge, unavailable = limits
    plan = plan_rollout(present, replicas=replicas, surge=surge, unavailable=unavailable)
    assert len(present) + plan.create <= max(replicas + surge, len(present))
    ready_before = sum(pod.ready for pod in present)
    ready_after = sum(pod.ready for pod in present if pod.name not in plan.delete)
    surplus = max(0, sum(pod.current for pod in present) - replicas)
    assert ready_after >= min(ready_before, replicas - unavailable) - surplus


@given(st.integers(0, 5), st.integers(0, 5), bounds)
def test_steps_end_with_the_wanted_pods_of_the_present_template(
    old: int, replicas: int, limits: tuple[int, int]
) -> None:
    """Whatever is created becomes ready; then a rollout ends, and its end is stable."""
    surge, unavailable = limits
    present = [PodFacts(f"old{index}", current=False, ready=True, created="1") for index in range(old)]
    for step in range(50):
        plan = plan_rollout(present, replicas=replicas, surge=surge, unavailable=unavailable)
        if not plan.create and not plan.delete:
            break
        present = [pod for pod in present if pod.name not in plan.delete]
        present += [
            PodFacts(f"new{step}-{index}", current=True, ready=True, created="2")
            for index in range(plan.create)
        ]
    assert len(present) == replicas
    assert all(pod.current for pod in present)


def test_scaling_down_takes_unready_and_young_pods_first() -> None:
    present = [
        PodFacts("oldest", current=True, ready=True, created="1"),
        PodFacts("unready", current=True, ready=False, created="2"),
        PodFacts("youngest", current=True, ready=True, created="3"),
    ]
    assert plan_rollout(present, replicas=1, surge=1, unavailable=0).delete == ("unready", "youngest")


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (2, "75%", "15%", (2, 0)),
        (1, "75%", "15%", (1, 0)),
        (10, "75%", "15%", (8, 1)),
        (4, 1, 2, (1, 2)),
        (4, None, None, (1, 1)),
        (4, 0, 0, (0, 1)),
    ],
)
def test_percentages_round_as_in_kubernetes(
    replicas: int, surge: int | str | None, unavailable: int | str | None, expected: tuple[int, int]
) -> None:
    assert resolve_bounds(replicas, surge, unavailable) == expected


def test_the_hash_of_a_template_ignores_the_order_of_keys_and_sees_every_value() -> None:
    assert template_hash({"a": 1, "b": 2}) == template_hash({"b": 2, "a": 1})
    assert template_hash({"a": 1}) != template_hash({"a": 2})
    assert len(template_hash({})) == 10

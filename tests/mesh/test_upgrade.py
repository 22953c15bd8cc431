"""A rolling upgrade is seen from the instances alone, and forgotten when it is over."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from mesh.upgrade import ROLLOUT_MS, Instance, about_to_go

NOW = 1_000_000_000


@dataclass(frozen=True)
class Pod:
    instance_id: str
    started: int
    labels: frozenset[str]


def pod(instance_id: str, age_ms: int, *labels: str) -> Pod:
    return Pod(instance_id, NOW - age_ms, frozenset(labels))


OLD = [pod("aaaaaa-1", 10**8, "mt:x"), pod("aaaaaa-2", 10**7, "mt:x")]
NEW = [pod("bbbbbb-1", 60_000, "mt:x"), pod("bbbbbb-2", 1_000, "mt:x")]
OTHER = [pod("cccccc-1", 10**8, "mt:y"), pod("cccccc-2", 2_000, "mt:y")]


def ours(instances: Sequence[Instance]) -> frozenset[str]:
    return about_to_go(instances, NOW)


def grouped_by_identity(instances: Sequence[Instance]) -> frozenset[str]:
    """The original's rule: label sets are the same only where they are the same object."""
    groups: dict[int, list[Instance]] = {}
    for instance in instances:
        groups.setdefault(id(instance.labels), []).append(instance)
    return frozenset().union(*(about_to_go(group, NOW) for group in groups.values()))


def check_old_pods_with_labels_are_about_to_go(
    rule: Callable[[Sequence[Instance]], frozenset[str]],
) -> None:
    assert rule([*OLD, *NEW, *OTHER]) == {"aaaaaa-1", "aaaaaa-2"}


def test_pods_of_the_older_replicaset_are_about_to_go() -> None:
    check_old_pods_with_labels_are_about_to_go(ours)
    with pytest.raises(AssertionError):
        check_old_pods_with_labels_are_about_to_go(grouped_by_identity)


def test_asking_often_changes_nothing() -> None:
    """The original counted each update of an instance as another instance."""
    assert {ours([*OLD, *NEW]) for _ in range(100)} == {frozenset({"aaaaaa-1", "aaaaaa-2"})}


def test_a_rollout_that_goes_no_further_is_over() -> None:
    stuck = [pod("bbbbbb-1", ROLLOUT_MS + 1, "mt:x")]
    assert ours([*OLD, *stuck, pod("dddddd-1", 0, "mt:y")]) == frozenset()


def test_pods_of_two_replicasets_that_started_together_both_stay() -> None:
    assert ours([pod("aaaaaa-1", 2_000), pod("aaaaaa-2", 900), pod("bbbbbb-1", 1_000)]) == frozenset()


def test_ids_that_name_no_replicaset_are_left_alone() -> None:
    assert ours([pod("one", 10**8), pod("two", 1)]) == frozenset()

"""The simulation in small: the mesh is about as good as one global cache, and its references are right."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.simulation.reference import clairvoyant, global_lru
from bench.simulation.scenarios import Scale, Scenario, run, scenarios

SMALL = Scale(instances=8, models=4_000, room=400, requests=10_000, warm_up=2_500)
SCENARIOS = scenarios(SMALL, seed=1)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.name for scenario in SCENARIOS])
def test_the_mesh_hits_within_three_points_of_one_global_lru(scenario: Scenario) -> None:
    result = run(scenario)
    assert result.over_capacity <= 0
    assert result.refused == 0
    assert result.gap_points <= 3
    assert result.mesh.loads <= 1.06 * result.lru.loads
    if result.optimum:
        assert result.mesh.hit_rate <= result.optimum.hit_rate


def test_a_global_lru_counts_what_it_should() -> None:
    outcome = global_lru([1, 2, 1, 3, 2, 1], [1] * 4, 2, {}, 0)
    assert (outcome.requests, outcome.hits, outcome.loads) == (6, 1, 5)
    assert global_lru([1, 2, 1, 2, 1, 2], [1] * 4, 2, {4: 1}, 2).hits == 3


def fewest_misses(requests: list[int], capacity: int) -> int:
    """By trying all that could be evicted."""
    states = {frozenset[int](): 0}
    for model in requests:
        following: dict[frozenset[int], int] = {}
        for held, misses in states.items():
            now = held | {model}
            cost = misses + (model not in held)
            kept = itertools.combinations(now, capacity) if len(now) > capacity else [tuple(now)]
            for choice in map(frozenset, kept):
                following[choice] = min(cost, following.get(choice, cost))
        states = following
    return min(states.values())


@given(st.lists(st.integers(0, 4), min_size=1, max_size=9), st.integers(1, 3))
def test_the_clairvoyant_cache_is_the_best_there_can_be(requests: list[int], capacity: int) -> None:
    outcome = clairvoyant(requests, capacity, {}, 0)
    assert outcome.loads == fewest_misses(requests, capacity)

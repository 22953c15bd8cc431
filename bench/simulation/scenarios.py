"""What the mesh is put through: steady and shifting traffic, lost and new instances, sizes that differ."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from bench.simulation.mesh import SimulatedMesh, Speed
from bench.simulation.reference import Outcome, clairvoyant, global_lru
from bench.simulation.traffic import Traffic, zipf

SIZE = 1024


class Scale(NamedTuple):
    """How large a simulation is."""

    instances: int
    models: int
    room: int
    """Models of average size that all instances hold together."""
    requests: int
    warm_up: int


FULL = Scale(instances=50, models=100_000, room=10_000, requests=160_000, warm_up=40_000)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table."""

    name: str
    scale: Scale
    traffic: Traffic
    sizes: list[int]
    speed: Speed = field(default_factory=Speed)
    changes: dict[int, int] = field(default_factory=dict)
    """Number of a request -> instances that come (positive) or die (negative) before it."""


class Result(NamedTuple):
    """What a scenario gave. `optimum` is None where sizes differ: then it is not known."""

    name: str
    mesh: Outcome
    lru: Outcome
    optimum: Outcome | None
    refused: int
    over_capacity: int
    seconds: float

    @property
    def gap_points(self) -> float:
        """Percentage points of hit rate that a global LRU has more than the mesh."""
        return 100 * (self.lru.hit_rate - self.mesh.hit_rate)


def scenarios(scale: Scale, seed: int) -> list[Scenario]:
    """All scenarios at one scale."""
    count, models = scale.requests, scale.models
    equal = [SIZE] * models
    mixed = np.random.default_rng(seed).lognormal(sigma=1.0, size=models)
    unequal = np.clip(mixed / mixed.mean() * SIZE, SIZE // 16, SIZE * 16).astype(int).tolist()
    shifting = zipf(count, models, seed=seed, shift_every=count // 20, shifted_share=0.1)
    churn = {
        int(count * share): change
        for share, change in ((0.35, -1), (0.45, 1), (0.55, -2), (0.65, 3), (0.75, -1), (0.85, 2))
    }
    return [
        Scenario("Zipf 1.0", scale, zipf(count, models, seed=seed), equal),
        Scenario("shifting", scale, shifting, equal),
        Scenario("shifting, instances come and go", scale, shifting, equal, changes=churn),
        Scenario(
            "entering at a tenth of the instances",
            scale,
            zipf(count, models, seed=seed, entry_share=0.1),
            equal,
        ),
        Scenario("shifting, sizes that differ", scale, shifting, unequal),
    ]


def run(scenario: Scenario) -> Result:
    """Runs the mesh and what it is compared with on the same requests."""
    started = time.perf_counter()
    scale = scenario.scale
    capacity = scale.room * SIZE // scale.instances
    mesh = SimulatedMesh(scale.instances, capacity, scenario.sizes, speed=scenario.speed)
    resizes: dict[int, int] = {}
    events: dict[int, Callable[[], None]] = {}
    instances = scale.instances
    for number, change in sorted(scenario.changes.items()):
        instances += change
        resizes[number] = instances
        events[number] = _event(mesh, change, number)
    traffic = scenario.traffic
    outcome = mesh.run(traffic.models, traffic.entries, events, scale.warm_up)
    mesh.check()
    bytes_at = {number: count * capacity for number, count in resizes.items()}
    models_at = {number: count * capacity // SIZE for number, count in resizes.items()}
    equal = len(set(scenario.sizes)) == 1
    total = scale.instances * capacity
    return Result(
        scenario.name,
        outcome,
        global_lru(traffic.models, scenario.sizes, total, bytes_at, scale.warm_up),
        clairvoyant(traffic.models, total // SIZE, models_at, scale.warm_up) if equal else None,
        mesh.refused,
        mesh.over_capacity,
        time.perf_counter() - started,
    )


def _event(mesh: SimulatedMesh, change: int, number: int) -> Callable[[], None]:
    def happen() -> None:
        for turn in range(abs(change)):
            if change > 0:
                mesh.join()
            else:
                mesh.lose(number * 7 + turn)

    return happen

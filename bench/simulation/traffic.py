"""Who is asked for what, when: sequences of requests that look like a shared service's."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests in order: model numbers, and the instance (as a share of all, 0 to 1) at which each enters."""

    models: list[int]
    entries: list[float]


def zipf(
    count: int,
    models: int,
    *,
    seed: int,
    exponent: float = 1.0,
    shift_every: int = 0,
    shifted_share: float = 0.0,
    entry_share: float = 1.0,
) -> Traffic:
    """Draws `count` requests whose popularity falls with the rank to the power of `exponent`.

    Every `shift_every` requests, `shifted_share` of the ranks change hands at random, the popular ones too.
    Requests enter at the first `entry_share` of the instances.
    """
    random = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, models + 1) ** exponent
    cumulated = np.cumsum(weights / weights.sum())
    ranks = np.minimum(np.searchsorted(cumulated, random.random(count)), models - 1)
    owners = random.permutation(models)
    wanted = np.empty(count, dtype=np.int64)
    step = shift_every or count
    for start in range(0, count, step):
        if start:
            moving = random.choice(models, int(models * shifted_share), replace=False)
            owners[moving] = owners[random.permutation(moving)]
        wanted[start : start + step] = owners[ranks[start : start + step]]
    return Traffic(wanted.tolist(), (random.random(count) * entry_share).tolist())

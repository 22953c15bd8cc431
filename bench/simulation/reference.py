"""What the mesh is measured against: one cache of all the memory together, with instant loads."""

import heapq
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Outcome(NamedTuple):
    """Counts of one run, without its warm-up."""

    requests: int
    hits: int
    loads: int

    @property
    def hit_rate(self) -> float:
        """Share of the requests that found a loaded copy."""
        return self.hits / self.requests


def global_lru(
    requests: Sequence[int], sizes: Sequence[int], capacity: int, resizes: Mapping[int, int], warm_up: int
) -> Outcome:
    """One least-recently-used cache. `resizes` maps a request's number to the capacity from there on."""
    cached: OrderedDict[int, None] = OrderedDict()
    used = hits = 0
    for number, model in enumerate(requests):
        capacity = resizes.get(number, capacity)
        if model in cached:
            cached.move_to_end(model)
            hits += number >= warm_up
        else:
            cached[model] = None
            used += sizes[model]
        while used > capacity:
            victim, _ = cached.popitem(last=False)
            used -= sizes[victim]
    counted = len(requests) - warm_up
    return Outcome(counted, hits, counted - hits)


def clairvoyant(requests: Sequence[int], capacity: int, resizes: Mapping[int, int], warm_up: int) -> Outcome:
    """Belady's cache, which evicts what is wanted again last; `capacity` in models of equal size.

    Source: L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", 1966.
    """
    never = len(requests)
    following = [never] * len(requests)
    seen: dict[int, int] = {}
    for number in range(len(requests) - 1, -1, -1):
        following[number] = seen.get(requests[number], never)
        seen[requests[number]] = number
    wanted_next: dict[int, int] = {}
    farthest: list[tuple[int, int]] = []
    hits = 0
    for number, model in enumerate(requests):
        capacity = resizes.get(number, capacity)
        hits += model in wanted_next and number >= warm_up
        wanted_next[model] = following[number]
        heapq.heappush(farthest, (-following[number], model))
        while len(wanted_next) > capacity:
            when, victim = heapq.heappop(farthest)
            if wanted_next.get(victim) == -when:
                del wanted_next[victim]
    counted = len(requests) - warm_up
    return Outcome(counted, hits, counted - hits)

"""Which instances a rolling upgrade is about to replace.

A pod's name ends in `<end of its ReplicaSet's hash>-<five characters>`, and so does its instance id. Where
instances with the same labels belong to several ReplicaSets and the newest of those grew lately, the pods of
the older ones are on their way out: what is loaded there would soon have to be loaded again.
"""

from collections.abc import Sequence
from typing import Protocol

GROUP_LENGTH = 6
"""Characters of an instance id that name its ReplicaSet; ids that are no longer than this name none."""
ROLLOUT_MS = 600_000
"""A rollout that has started no pod for ten minutes is over or stuck; the original's time."""


class Instance(Protocol):
    """What counts of an instance."""

    @property
    def instance_id(self) -> str:
        """Its id."""

    @property
    def labels(self) -> frozenset[str]:
        """What tells the instances of one Deployment from those of others."""

    @property
    def started(self) -> int:
        """When its process started, in ms since 1970."""


def about_to_go(instances: Sequence[Instance], now: int) -> frozenset[str]:
    """Ids of instances that an upgrade under way is likely to replace; `now` in ms since 1970."""
    if all(now - instance.started > ROLLOUT_MS for instance in instances):
        return frozenset()
    deployments: dict[frozenset[str], dict[str, list[Instance]]] = {}
    for instance in instances:
        if len(instance.instance_id) > GROUP_LENGTH:
            replica_sets = deployments.setdefault(instance.labels, {})
            replica_sets.setdefault(instance.instance_id[:GROUP_LENGTH], []).append(instance)
    going: set[str] = set()
    for replica_sets in deployments.values():
        newest = max(replica_sets.values(), key=_first_start)
        if now - _last_start(newest) > ROLLOUT_MS:
            continue
        for replica_set in replica_sets.values():
            if _last_start(replica_set) < _first_start(newest):
                going.update(instance.instance_id for instance in replica_set)
    return frozenset(going)


def _first_start(instances: Sequence[Instance]) -> int:
    return min(instance.started for instance in instances)


def _last_start(instances: Sequence[Instance]) -> int:
    return max(instance.started for instance in instances)

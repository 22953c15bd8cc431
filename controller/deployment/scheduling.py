"""Where a runtime's pods may run, and how they spread.

They run on the architectures that our images exist for, and where the user says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from api.core import Affinity

JSON = dict[str, Any]

_ARCHITECTURES: JSON = {
    "key": "kubernetes.io/arch",
    "operator": "In",
    "values": ["amd64", "arm64", "s390x"],
}
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def affinity(given: Affinity | None) -> JSON:
    """Returns the pod's affinity.

    Terms of a node selector are alternatives, so the architecture is added to each of the user's terms: a
    term of its own would let pods run where the user did not want them.
    """
    built = given.dump() if given is not None else {}
    node = dict(built.get("nodeAffinity") or {})
    terms = (node.get(_REQUIRED) or {}).get("nodeSelectorTerms") or [{}]
    node[_REQUIRED] = {
        "nodeSelectorTerms": [
            term | {"matchExpressions": [*(term.get("matchExpressions") or []), _ARCHITECTURES]}
            for term in terms
        ],
    }
    return built | {"nodeAffinity": node}


def spread(labels: dict[str, str]) -> list[JSON]:
    """Returns how the pods with these labels spread over zones and nodes: evenly where there is room.

    Copies of a model are in different pods; pods that share a node would go together. The pods of one
    ReplicaSet count, so that those of a rollout's old one do not push the new ones together.
    """
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels},
            "matchLabelKeys": ["pod-template-hash"],
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]

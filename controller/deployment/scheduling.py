"""Where a runtime's pods may run: on the architectures that our images exist for, and where the user says."""

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

"""Labels of everything a controller of ours makes, by which it and people find it again.

Several controllers may share a cluster, one for the cluster and others each for a namespace of its own. Which
of them made an object is a label of it: a controller that does not serve a namespace removes there what it
made itself when it still did, and leaves alone what is another's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from api.meta import KubeObject

COMMON = {
    "app.kubernetes.io/instance": "modelmesh-controller",
    "app.kubernetes.io/managed-by": "modelmesh-controller",
    "app.kubernetes.io/name": "modelmesh-controller",
}
"""On every object, pods included."""
SERVICE = "modelmesh-service"
"""On everything that belongs to one mesh; the value is the name of its Service."""
CONTROLLER = "modelmesh-controller"
"""On every object but pods; the value is the namespace of the controller that made it."""


def labels(controller: str, service: str = "") -> dict[str, str]:
    """Returns the labels of an object.

    Args:
        controller: namespace of the controller that makes it.
        service: name of the Service of the mesh it belongs to; empty where there are none.
    """
    return COMMON | {CONTROLLER: controller} | ({SERVICE: service} if service else {})


def made_by(obj: KubeObject, controller: str) -> bool:
    """Tells whether the controller of this namespace made the object."""
    return obj.metadata.labels.get(CONTROLLER) == controller

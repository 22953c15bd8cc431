"""The autoscaler that annotations of a (Cluster)ServingRuntime ask for: `autoscaling/v2`, one metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from api.v1alpha1 import rules
from controller import runtime_validation
from controller.errors import InvalidRuntimeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from api.v1alpha1 import ClusterServingRuntime, ServingRuntime, ServingRuntimeSpec

JSON = dict[str, Any]

_DEFAULT_TARGET_PERCENT = 80


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """What an autoscaler is to keep.

    Attributes:
        minimum: fewest pods.
        maximum: most pods.
        metric: `cpu` or `memory`.
        target_percent: use of the request that is aimed at.
    """

    minimum: int = 1
    maximum: int = 1
    metric: str = "cpu"
    target_percent: int = _DEFAULT_TARGET_PERCENT


def autoscaling(annotations: Mapping[str, str], spec: ServingRuntimeSpec) -> Autoscaling | None:
    """Reads a runtime's annotations; None where they ask for no autoscaler.

    Raises:
        InvalidRuntimeError: they cannot be used; names each annotation at fault.
    """
    if found := runtime_validation.autoscaling_problems(annotations, spec):
        raise InvalidRuntimeError(runtime_validation.sentence(found))
    if annotations.get(rules.CLASS) != "hpa":
        return None
    return Autoscaling(
        minimum=int(annotations.get(rules.MIN_SCALE, 1)),
        maximum=int(annotations.get(rules.MAX_SCALE, 1)),
        metric=annotations.get(rules.METRIC, "cpu"),
        target_percent=int(annotations.get(rules.TARGET, _DEFAULT_TARGET_PERCENT)),
    )


def build(
    runtime: ServingRuntime | ClusterServingRuntime,
    wanted: Autoscaling,
    deployment: JSON,
) -> JSON:
    """Builds the autoscaler of a runtime's Deployment; it has the Deployment's name and labels."""
    metadata = deployment["metadata"]
    kserve = {"serving.kserve.io/inferenceservice": runtime.name, "component": "predictor"}
    target = {"type": "Utilization", "averageUtilization": wanted.target_percent}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": runtime.metadata.labels | kserve | metadata["labels"],
            "annotations": _own_annotations(runtime.metadata.annotations),
            "ownerReferences": metadata["ownerReferences"],
        },
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": metadata["name"]},
            "minReplicas": wanted.minimum,
            "maxReplicas": wanted.maximum,
            "metrics": [{"type": "Resource", "resource": {"name": wanted.metric, "target": target}}],
        },
    }


def _own_annotations(annotations: Mapping[str, str]) -> dict[str, str]:
    """Leaves out what `kubectl apply` keeps for itself: it describes the runtime, not its autoscaler."""
    return {key: value for key, value in annotations.items() if not key.startswith("kubectl.kubernetes.io/")}

"""Horizontal autoscalers (`autoscaling/v2`)."""

from typing import ClassVar

from pydantic import Field

from api.meta import JSON, KubeObject, Model
from api.resource import Resource

HORIZONTAL_POD_AUTOSCALER = Resource(
    "autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"
)


class HorizontalPodAutoscalerSpec(Model):
    """Bounds of a workload's replicas, and what they follow."""

    min_replicas: int | None = None
    max_replicas: int
    metrics: list[JSON] = Field(default_factory=list)


class HorizontalPodAutoscaler(KubeObject):
    """Sets a workload's replicas by its use of resources."""

    RESOURCE: ClassVar[Resource] = HORIZONTAL_POD_AUTOSCALER

    spec: HorizontalPodAutoscalerSpec
    status: JSON = Field(default_factory=dict)

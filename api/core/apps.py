"""Deployments (`apps/v1`)."""

from typing import ClassVar

from pydantic import Field

from api.core.pod import PodTemplateSpec
from api.meta import JSON, IntOrString, KubeObject, Model
from api.resource import Resource

DEPLOYMENT = Resource("apps", "v1", "Deployment", "deployments")


class LabelSelector(Model):
    """Which objects a workload or a policy is about."""

    match_labels: dict[str, str] = Field(default_factory=dict)
    match_expressions: list[JSON] = Field(default_factory=list)


class RollingUpdate(Model):
    """How many pods may be added or missing during an update."""

    max_surge: IntOrString | None = None
    max_unavailable: IntOrString | None = None


class DeploymentStrategy(Model):
    """How old pods give way to new ones."""

    type: str | None = None
    rolling_update: RollingUpdate | None = None


class DeploymentSpec(Model):
    """Wanted pods."""

    replicas: int | None = None
    selector: LabelSelector = Field(default_factory=LabelSelector)
    template: PodTemplateSpec = Field(default_factory=PodTemplateSpec)
    strategy: DeploymentStrategy | None = None
    min_ready_seconds: int | None = None
    progress_deadline_seconds: int | None = None
    revision_history_limit: int | None = None
    paused: bool | None = None


class DeploymentCondition(Model):
    """One aspect of a Deployment's state, such as `Available`."""

    type: str
    status: str
    reason: str | None = None
    message: str | None = None
    last_update_time: str | None = None
    last_transition_time: str | None = None


class DeploymentStatus(Model):
    """Pods as they are."""

    observed_generation: int | None = None
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    unavailable_replicas: int = 0
    conditions: list[DeploymentCondition] = Field(default_factory=list)


class Deployment(KubeObject):
    """Copies of one pod, kept at a number."""

    RESOURCE: ClassVar[Resource] = DEPLOYMENT

    spec: DeploymentSpec = Field(default_factory=DeploymentSpec)
    status: DeploymentStatus = Field(default_factory=DeploymentStatus)

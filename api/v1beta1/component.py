"""What predictor, transformer and explainer of an InferenceService have in common."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from api.core.pod import PodSpec
from api.meta import Model

INT64 = Field(json_schema_extra={"format": "int64"})


class Batcher(Model):
    """Gathers requests into batches."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    max_batch_size: int | None = None
    """Requests in a batch."""
    max_latency: int | None = None
    """Milliseconds to wait for a full batch."""
    timeout: int | None = None
    """Seconds until a batch counts as failed."""


class Logger(Model):
    """Sends requests and responses to a sink."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    mode: Literal["all", "request", "response"] | None = None
    """What to send."""
    url: str | None = None
    """Where to send it."""


class ComponentSpec(PodSpec):
    """A pod and how it scales. ModelMesh ignores all of it: its models share the pods of their runtime."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    min_replicas: int | None = None
    """Fewest pods; 0 allows scaling to zero."""
    max_replicas: int | None = None
    """Most pods; 0 is no limit."""
    scale_target: int | None = None
    """Wanted value of the scaling metric."""
    scale_metric: Literal["cpu", "memory", "concurrency", "rps"] | None = None
    """Metric to scale by."""
    container_concurrency: Annotated[int, INT64] | None = None
    """Most requests at once in a container."""
    timeout: Annotated[int, INT64] | None = None
    """Seconds until a request fails."""
    canary_traffic_percent: Annotated[int, INT64] | None = None
    """Share of traffic for the newest revision."""
    logger: Logger | None = None
    """Sends requests and responses to a sink."""
    batcher: Batcher | None = None
    """Gathers requests into batches."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels added to the pod."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations added to the pod."""

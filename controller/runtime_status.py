"""What a (Cluster)ServingRuntime shows of itself: pods, models, memory, and whether it is ready.

Pure functions from what is known of a runtime in each namespace to its field `status`. Condition Ready is
true where nothing is left to do: pods are up, or no model needs any. It is absent while a runtime is
disabled, as there is nothing to wait for.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from controller.readiness import Explanation
from controller.status_fields import conditions
from store.records import NOTHING, InstanceRecord, Resources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from api.core import Deployment
    from controller.runtime.reconcile import Request

JSON = dict[str, Any]

READY = "Ready"
_MIB = 1024**2


class Problems(dict["Request", str]):
    """Why runtimes are not deployed as they ask for; tells when that changes.

    Attributes:
        judged: the runtimes that were looked at: only of these is no problem good news.

    Args:
        changed: called with the runtime.
    """

    def __init__(self, changed: Callable[[Request], None]) -> None:
        super().__init__()
        self._changed = changed
        self.judged: set[Request] = set()

    def __setitem__(self, runtime: Request, problem: str) -> None:
        self.judged.add(runtime)
        known = self.get(runtime)
        super().__setitem__(runtime, problem)
        if problem != known:
            self._changed(runtime)

    def pop(self, runtime: Request, default: Any = None) -> Any:
        """Forgets a problem."""
        news = runtime in self or runtime not in self.judged
        self.judged.add(runtime)
        problem = super().pop(runtime, default)
        if news:
            self._changed(runtime)
        return problem


class Stage(IntEnum):
    """How far a runtime is in one namespace; of several, the lowest is what its author should look at."""

    INVALID = 0
    REFUSED = 1
    FAILED = 2
    DEPLOYING = 3
    STARTING = 4
    SOME_READY = 5
    ROLLING_OUT = 6
    READY = 7
    SCALED_TO_ZERO = 8


REASONS = {
    Stage.INVALID: "InvalidSpec",
    Stage.REFUSED: "NotDeployed",
    Stage.FAILED: "PodsFailed",
    Stage.DEPLOYING: "Deploying",
    Stage.STARTING: "PodsStarting",
    Stage.SOME_READY: "SomePodsReady",
    Stage.ROLLING_OUT: "RollingOut",
    Stage.READY: "PodsReady",
    Stage.SCALED_TO_ZERO: "ScaledToZero",
}
"""The word for each stage in the condition."""


@dataclass(frozen=True, slots=True)
class Local:
    """A runtime in one namespace.

    Attributes:
        namespace: which.
        deployment: its Deployment; None where there is none.
        refusal: why its Deployment could not be written; empty where it could.
        instances: the mesh's records of its pods; None while the registry cannot be read.
    """

    namespace: str
    deployment: Deployment | None = None
    refusal: str = ""
    instances: Sequence[InstanceRecord] | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """A runtime in all namespaces together.

    Attributes:
        desired: pods that there should be.
        ready: pods that serve.
        models: copies in memory; None where any namespace's registry cannot be read: the last known stay.
        memory: capacity and use, in bytes; None as for `models`.
        stage: the one to look at; None where no namespace is served.
        message: says it to people.
    """

    desired: int = 0
    ready: int = 0
    models: int | None = None
    memory: tuple[int, int] | None = None
    stage: Stage | None = None
    message: str = ""


def instances_of(runtime: str, records: Iterable[InstanceRecord]) -> list[InstanceRecord]:
    """Returns the records of a runtime's pods."""
    return [record for record in records if f"rt:{runtime}" in record.labels]


def _pods(local: Local) -> tuple[int, int]:
    deployment = local.deployment
    if deployment is None:
        return 0, 0
    desired = 1 if deployment.spec.replicas is None else deployment.spec.replicas
    return desired, min(deployment.status.ready_replicas, desired)


def _rolls_out(deployment: Deployment) -> bool:
    """Whether pods of an older spec are still there, which may be all that are ready."""
    status = deployment.status
    seen = status.observed_generation in {None, deployment.metadata.generation}
    return not seen or status.replicas > status.updated_replicas


def _failure(deployment: Deployment) -> str:
    """What Kubernetes itself says is wrong with the Deployment, such as an exceeded quota."""
    for condition in deployment.status.conditions:
        failed = condition.type == "ReplicaFailure" and condition.status == "True"
        stuck = condition.type == "Progressing" and condition.status == "False"
        if failed or stuck:
            return condition.message or condition.reason or condition.type
    return ""


def _stage(local: Local, problem: str) -> tuple[Stage, str]:
    """How far a runtime is in one namespace, and the sentence for it."""
    if problem or local.refusal:
        return (Stage.INVALID, problem) if problem else (Stage.REFUSED, local.refusal)
    if local.deployment is None:
        return Stage.DEPLOYING, "Its Deployment is being made"
    desired, ready = _pods(local)
    if desired == 0:
        return Stage.SCALED_TO_ZERO, "It has no pods while no model needs it (or while spec.replicas is 0)"
    count, done = f"{ready} of {desired} pods are ready", ready == desired
    if done and not _rolls_out(local.deployment):
        return Stage.READY, count
    failure = _failure(local.deployment)
    look = f"`kubectl describe deployment {local.deployment.name} -n {local.namespace}`"
    cause = f": {failure} (see {look})" if failure else f": see {look} where this lasts"
    if done:
        return Stage.ROLLING_OUT, f"{count}, older ones are not replaced yet{cause}"
    progress = Stage.SOME_READY if ready else Stage.STARTING
    return Stage.FAILED if failure else progress, f"{count}{cause}"


def summarize(places: Sequence[Local], problem: str, *, cluster: bool) -> Summary:
    """Adds a runtime's namespaces up.

    Args:
        places: the runtime in each namespace where it counts.
        problem: what is wrong with its spec; empty where nothing is.
        cluster: whether messages have to name the namespace.
    """
    if not places:
        return Summary(stage=Stage.INVALID, message=problem) if problem else Summary()
    pods = [_pods(place) for place in places]
    stages = [(*_stage(place, problem), place.namespace) for place in places]
    stage, message, namespace = min(stages, key=lambda found: found[0])
    if cluster and stage not in {Stage.INVALID, Stage.READY, Stage.SCALED_TO_ZERO}:
        message = f"Namespace {namespace}: {message}"
    desired, ready = sum(pair[0] for pair in pods), sum(pair[1] for pair in pods)
    if cluster and stage in {Stage.READY, Stage.SCALED_TO_ZERO} and desired:
        stage, message = Stage.READY, f"{ready} of {desired} pods are ready"
    records = [record for place in places for record in place.instances or ()]
    known = all(place.instances is not None for place in places)
    capacity, used = _total(record.capacity for record in records), _total(record.used for record in records)
    return Summary(
        desired=desired,
        ready=ready,
        models=sum(record.count for record in records) if known else None,
        memory=(capacity.memory, used.memory) if known else None,
        stage=stage,
        message=message,
    )


def _total(amounts: Iterable[Resources]) -> Resources:
    return sum(amounts, NOTHING)


def _mebibytes(amount: int) -> str:
    return f"{amount // _MIB}Mi" if amount else "0"


def fields(summary: Summary, before: JSON, generation: int, now: datetime) -> JSON:
    """Returns the field `status` with ours laid over what is there.

    Args:
        summary: the runtime as it is.
        before: its status so far.
        generation: of the spec that was looked at.
        now: for a condition that changes.
    """
    ours: JSON = {
        "observedGeneration": generation,
        "conditions": _conditions(before, summary, now),
        "pods": {"desired": summary.desired, "ready": summary.ready},
    }
    if summary.models is not None:
        ours["models"] = summary.models
    if summary.memory is not None:
        capacity, used = summary.memory
        ours["memory"] = {"capacity": _mebibytes(capacity), "used": _mebibytes(used)}
    return before | ours


def refusal(status: JSON, generation: int) -> str:
    """Returns why a runtime was not deployed, by its status; empty where it was, or its spec has changed."""
    if status.get("observedGeneration") != generation:
        return ""
    ready: JSON = next((c for c in status.get("conditions") or [] if c.get("type") == READY), {})
    return str(ready.get("message", "")) if ready.get("reason") == REASONS[Stage.REFUSED] else ""


def cleared(before: JSON) -> JSON:
    """Returns the field `status` without ours: the runtime is no longer ModelMesh's."""
    foreign = _foreign(before)
    ours = {"conditions", "observedGeneration", "pods", "models", "memory"}
    rest = {name: value for name, value in before.items() if name not in ours}
    return rest | ({"conditions": foreign} if foreign else {})


def _foreign(status: JSON) -> list[JSON]:
    return [condition for condition in status.get("conditions") or [] if condition.get("type") != READY]


def _conditions(before: JSON, summary: Summary, now: datetime) -> list[JSON]:
    if summary.stage is None:
        return _foreign(before)
    explanation = Explanation(REASONS[summary.stage], summary.message)
    return conditions(before, (READY,), explanation, now, true=summary.stage >= Stage.SOME_READY)

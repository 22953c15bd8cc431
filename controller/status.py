"""The status machine: from what the mesh answers to what users read.

Pure functions from the previous `ModelStatus` and an answer to the next one. Predictor and InferenceService
share it; how each kind spells a status is in `status_fields`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

from api.proto.model_mesh_pb2 import ModelStatusInfo, VModelStatusInfo

WAITING_FOR_POD = "Waiting for runtime Pod to become available"
_WAITING_FOR_SUPPORTING_POD = "Waiting for supporting runtime Pod to become available"
NO_SUPPORTING_RUNTIME = "No ServingRuntime supports specified model type and/or protocol"
RUNTIME_NOT_RECOGNIZED = "Specified runtime name not recognized"
_NO_HOME = "There are no running instances that meet the label requirements of type "

LOADING_POLL_S = 1.0
NO_POD_POLL_S = 3.0


class State(StrEnum):
    """State of the active or the target model; NONE where there is no separate target."""

    NONE = ""
    PENDING = "Pending"
    STANDBY = "Standby"
    LOADING = "Loading"
    LOADED = "Loaded"
    FAILED = "FailedToLoad"


class Transition(StrEnum):
    """How far the newest spec is in effect."""

    UP_TO_DATE = "UpToDate"
    IN_PROGRESS = "InProgress"
    BLOCKED = "BlockedByFailedLoad"
    INVALID = "InvalidSpec"


class Reason(StrEnum):
    """Why the newest spec is not in effect."""

    LOAD_FAILED = "ModelLoadFailed"
    RUNTIME_UNHEALTHY = "RuntimeUnhealthy"
    NO_SUPPORTING_RUNTIME = "NoSupportingRuntime"
    RUNTIME_NOT_RECOGNIZED = "RuntimeNotRecognized"
    INVALID_SPEC = "InvalidPredictorSpec"


@dataclass(frozen=True, slots=True)
class Failure:
    """The last failure.

    Attributes:
        location: the mesh instance where it happened, where that is known.
        time: when, to the second.
    """

    reason: Reason
    message: str = ""
    model_id: str = ""
    location: str = ""
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Urls:
    """Where inference requests go; `rest` is empty where REST is off."""

    grpc: str = ""
    rest: str = ""


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """Status of one Predictor or InferenceService, free of how its kind spells it.

    The last two are known at the moment only: no object shows them, so they are no part of what is compared.

    Attributes:
        runtimes: names of the runtimes that support the model.
        loads: whether a pod loads the model, rather than that one is waited for.
    """

    available: bool = False
    transition: Transition = Transition.UP_TO_DATE
    active: State = State.PENDING
    target: State = State.NONE
    failure: Failure | None = None
    failed_copies: int = 0
    total_copies: int = 0
    urls: Urls = Urls()
    runtimes: tuple[str, ...] = field(default=(), compare=False)
    loads: bool = field(default=False, compare=False)

    @property
    def waits_for_runtime(self) -> bool:
        """Whether the model waits for a runtime pod."""
        return self.failure is not None and self.failure.reason is Reason.RUNTIME_UNHEALTHY


@dataclass(frozen=True, slots=True)
class Support:
    """What the controller knows of the runtimes that could load a model.

    Attributes:
        exists: whether an enabled runtime supports the model.
        reason: why not: NO_SUPPORTING_RUNTIME or RUNTIME_NOT_RECOGNIZED.
        message: names what was asked for and what there is.
        runtimes: names of those that support it.
    """

    exists: bool = True
    reason: Reason = Reason.NO_SUPPORTING_RUNTIME
    message: str = ""
    runtimes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Observation:
    """One model as the mesh sees it. `state` is None where the answer says nothing usable."""

    state: State | None
    reason: Reason | None = None
    message: str = ""


def observe(info: ModelStatusInfo | None, support: Support) -> Observation:
    """Decodes the mesh's view of one model.

    A type without any running instance is reported by the mesh as a failed load whose text begins with
    the *no home* prefix: it names the type and the labels its constraints require. Whether a runtime
    exists at all the controller knows better, as the constraints reach the pods with a delay.
    """
    if info is None:
        return Observation(State.PENDING)
    error = info.errors[0] if info.errors else ""
    match info.status:
        case ModelStatusInfo.NOT_LOADED:
            state = State.STANDBY
        case ModelStatusInfo.LOADING:
            state = State.LOADING
        case ModelStatusInfo.LOADED:
            state = State.LOADED
        case ModelStatusInfo.LOADING_FAILED if error.startswith(_NO_HOME):
            if not support.exists:
                return Observation(State.FAILED, support.reason, support.message)
            return Observation(State.LOADING, Reason.RUNTIME_UNHEALTHY, _WAITING_FOR_SUPPORTING_POD)
        case ModelStatusInfo.LOADING_FAILED:
            return Observation(State.FAILED, Reason.LOAD_FAILED, error)
        case _:
            return Observation(None)
    return Observation(state, Reason.LOAD_FAILED if error else None, error)


def load_now(previous: ModelStatus) -> bool:
    """Tells whether to ask the mesh to load the model at once, rather than at its first request.

    A model that waited for a pod is among them: it was in memory or about to be, and until it is loaded it
    counts as waiting, so nobody would send it that first request.
    """
    return (
        previous.active in {State.PENDING, State.FAILED}
        or previous.target is not State.NONE
        or previous.waits_for_runtime
    )


def _copies(info: VModelStatusInfo, active: Observation, target: Observation) -> tuple[int, int]:
    views = [(info.activeModelStatus, active)]
    if info.activeModelId != info.targetModelId:
        views.append((info.targetModelStatus, target))
    copies = [
        copy
        for view, seen in views
        if seen.reason in {None, Reason.LOAD_FAILED}
        for copy in view.modelCopyInfos
    ]
    failed = sum(copy.copyStatus == ModelStatusInfo.LOADING_FAILED for copy in copies)
    return failed, len(copies)


def _transition(info: VModelStatusInfo, previous: Transition) -> Transition:
    match info.status:
        case VModelStatusInfo.DEFINED:
            return Transition.UP_TO_DATE
        case VModelStatusInfo.TRANSITIONING:
            return Transition.IN_PROGRESS
        case VModelStatusInfo.TRANSITION_FAILED:
            retrying = info.targetModelStatus.status == ModelStatusInfo.LOADING
            return Transition.IN_PROGRESS if retrying else Transition.BLOCKED
    return _no_longer_invalid(previous)


def _no_longer_invalid(previous: Transition) -> Transition:
    return Transition.UP_TO_DATE if previous is Transition.INVALID else previous


def _failure(
    previous: ModelStatus,
    model_id: str,
    info: ModelStatusInfo,
    seen: Observation,
    now: datetime,
) -> Failure | None:
    if info.status == ModelStatusInfo.LOADED:
        return None
    if seen.reason is None:
        return previous.failure if previous.waits_for_runtime else None
    failure = Failure(seen.reason, seen.message, model_id)
    if seen.reason is Reason.LOAD_FAILED:
        for copy in info.modelCopyInfos:
            if copy.copyStatus == ModelStatusInfo.LOADING_FAILED:
                time = datetime.fromtimestamp(copy.time // 1000, UTC) if copy.time else None
                return replace(failure, location=copy.location, time=time)
        return failure
    return _since(previous, failure, now)


def _since(previous: ModelStatus, failure: Failure, now: datetime) -> Failure:
    """Dates a failure that the mesh gives no time to; one that lasts keeps the time it began.

    It is seen again every few seconds by every model that waits: a new time each would be a write each.
    """
    before = previous.failure
    if before is not None and (before.reason, before.model_id) == (failure.reason, failure.model_id):
        return replace(failure, time=before.time or now.replace(microsecond=0))
    return replace(failure, time=now.replace(microsecond=0))


def available(active: State, failure: Failure | None) -> bool:
    """Tells whether requests can be served: a model that is not in memory yet is loaded by its first one."""
    waits = failure is not None and failure.reason is Reason.RUNTIME_UNHEALTHY
    return active not in {State.NONE, State.FAILED} and not waits


def _refreshed(previous: ModelStatus, info: VModelStatusInfo, support: Support, urls: Urls) -> ModelStatus:
    active = observe(info.activeModelStatus if info.HasField("activeModelStatus") else None, support)
    target = _target(info, active, support)
    failed, total = _copies(info, active, target)
    return replace(
        previous,
        active=previous.active if active.state is None else active.state,
        target=State.NONE if _settled(info) or target.state is None else target.state,
        failed_copies=failed,
        total_copies=total,
        urls=urls,
        runtimes=support.runtimes,
        loads=any(
            seen.state is State.LOADING and seen.reason is not Reason.RUNTIME_UNHEALTHY
            for seen in (active, target)
        ),
    )


def _settled(info: VModelStatusInfo) -> bool:
    return info.activeModelId == info.targetModelId


def _target(info: VModelStatusInfo, active: Observation, support: Support) -> Observation:
    if _settled(info):
        return active
    return observe(info.targetModelStatus if info.HasField("targetModelStatus") else None, support)


def updated(
    previous: ModelStatus,
    info: VModelStatusInfo,
    support: Support,
    urls: Urls,
    now: datetime,
) -> ModelStatus:
    """Returns the status after the mesh accepted the spec and answered with `info`."""
    status = _refreshed(previous, info, support, urls)
    failure = None
    if info.targetModelId:
        target_info = info.activeModelStatus if _settled(info) else info.targetModelStatus
        seen = observe(target_info, support)
        failure = _failure(previous, info.targetModelId, target_info, seen, now)
    return replace(
        status,
        transition=_transition(info, previous.transition),
        failure=failure,
        available=available(status.active, failure),
    )


def unreachable(previous: ModelStatus, model_id: str, support: Support, now: datetime) -> ModelStatus:
    """Returns the status while no mesh instance can be asked.

    States and availability stay: pods that restart are not the model's fault. A model that no runtime
    supports is not available, since no pod will ever start for it; where an older model was serving, the mesh
    says once it answers again whether that one still does.
    """
    if support.exists:
        return replace(
            previous,
            active=State.PENDING if _was_unsupported(previous) else previous.active,
            transition=_no_longer_invalid(previous.transition),
            failure=Failure(Reason.RUNTIME_UNHEALTHY, WAITING_FOR_POD, model_id),
            runtimes=support.runtimes,
            loads=False,
        )
    failure = _since(previous, Failure(support.reason, support.message, model_id), now)
    if previous.active in {State.LOADED, State.STANDBY}:
        return replace(
            previous,
            available=False,
            target=State.FAILED,
            transition=Transition.BLOCKED,
            failure=failure,
        )
    return replace(
        previous,
        available=False,
        active=State.FAILED,
        target=State.NONE,
        transition=Transition.UP_TO_DATE,
        failure=failure,
    )


def _was_unsupported(status: ModelStatus) -> bool:
    unsupported = {Reason.NO_SUPPORTING_RUNTIME, Reason.RUNTIME_NOT_RECOGNIZED}
    return (
        status.active is State.FAILED and status.failure is not None and status.failure.reason in unsupported
    )


def name_taken(previous: ModelStatus, message: str) -> ModelStatus:
    """Returns the status of an object whose name another kind of object already has in this mesh."""
    return replace(previous, failure=Failure(Reason.INVALID_SPEC, message))


def invalid(previous: ModelStatus, message: str, model_id: str) -> ModelStatus:
    """Returns the status of a spec that contradicts itself; an older model may go on serving."""
    failure = Failure(Reason.INVALID_SPEC, message, model_id)
    return replace(previous, transition=Transition.INVALID, failure=failure)


def invalid_refreshed(invalid: ModelStatus, info: VModelStatusInfo, urls: Urls) -> ModelStatus:
    """Returns the status of such a spec with what the mesh says of the older model, where there is one."""
    status = _refreshed(invalid, info, Support(), urls)
    serving = bool(info.activeModelId) and available(status.active, invalid.failure)
    return replace(status, available=serving)


def requeue_after(status: ModelStatus, *, supported: bool = True) -> float | None:
    """Returns after how many seconds to ask the mesh again where nothing else wakes the controller.

    Args:
        status: as the mesh says.
        supported: whether a runtime supports the model. The mesh learns it later, when the runtime's last
            pod has gone; a model that is not in memory is then changed by nothing.
    """
    if status.waits_for_runtime or (not supported and status.failure is None):
        return NO_POD_POLL_S
    if State.LOADING in {status.active, status.target}:
        return LOADING_POLL_S
    return None

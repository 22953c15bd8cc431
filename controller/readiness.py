"""What the conditions Ready and PredictorReady, and Events, tell people about a model's status."""

from __future__ import annotations

from typing import Literal, NamedTuple

from controller.status import Failure, ModelStatus, Reason, State, Transition

_SERVING = {
    State.LOADED: "Model is loaded and serves requests",
    State.STANDBY: "Model is registered; its first request loads it",
    State.LOADING: "Model is being loaded; requests wait for it",
    State.PENDING: "Model is registered",
}
_HINTS = {
    Reason.LOAD_FAILED: "correct the storage or the model files; loading is tried again",
    Reason.NO_SUPPORTING_RUNTIME: "change the model's format or protocol, or apply a ServingRuntime that "
    "lists the format in supportedModelFormats with autoSelect: true",
    Reason.RUNTIME_NOT_RECOGNIZED: "correct the runtime's name, or apply a ServingRuntime of that name",
}

ACCEPTED = "Accepted"
WAITING = "WaitingForRuntime"
LOADING = "Loading"


class Explanation(NamedTuple):
    """A reason in one word and a message for people."""

    reason: str
    message: str


def _complaint(failure: Failure) -> str:
    hint = _HINTS.get(failure.reason)
    return f"{failure.message} ({hint})" if hint else failure.message


def _waiting(status: ModelStatus) -> Explanation:
    """Where a model is on its way into a pod: a runtime supports it, or a pod has begun to load it."""
    if status.loads:
        return Explanation(LOADING, "Model is being loaded by a pod that has become ready")
    of = f" of {' or '.join(status.runtimes)}" if status.runtimes else ""
    look = "`kubectl get servingruntimes,clusterservingruntimes`"
    message = status.failure.message if status.failure else ""
    return Explanation(WAITING, f"{message}: no pod{of} is ready yet, {look} tells why")


def explain(status: ModelStatus) -> Explanation:
    """Tells why a model is available or not, and what to do where it is not."""
    failure = status.failure
    if failure is not None and status.waits_for_runtime and status.transition is not Transition.INVALID:
        return _waiting(status)
    if not status.available:
        if failure is None:
            return Explanation(ACCEPTED, "Accepted; the mesh is told of it once a runtime pod is ready")
        return Explanation(failure.reason, _complaint(failure))
    if failure is not None and status.transition in {Transition.INVALID, Transition.BLOCKED}:
        reason = failure.reason if status.transition is Transition.INVALID else status.transition
        return Explanation(reason, f"Serves the previous model; {_complaint(failure)}")
    if status.transition is Transition.IN_PROGRESS:
        return Explanation(status.transition, "Serves the previous model while the new one is being loaded")
    return Explanation(status.active, _SERVING[status.active])


class Notice(NamedTuple):
    """An Event to record."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def _failure_notice(failure: Failure) -> Notice:
    match failure.reason:
        case Reason.RUNTIME_UNHEALTHY:
            return Notice("Normal", WAITING, failure.message)
        case Reason.INVALID_SPEC:
            return Notice("Warning", "InvalidSpec", _complaint(failure))
        case Reason.LOAD_FAILED:
            where = f" at {failure.location}" if failure.location else ""
            return Notice(
                "Warning", "LoadFailed", f"Loading {failure.model_id} failed{where}: {failure.message}"
            )
        case _:
            return Notice("Warning", failure.reason, _complaint(failure))


def _same_failure(before: Failure | None, now: Failure) -> bool:
    return before is not None and (before.reason, before.message, before.model_id) == (
        now.reason,
        now.message,
        now.model_id,
    )


def notices(before: ModelStatus, now: ModelStatus, model_id: str) -> list[Notice]:
    """Returns the Events of one change of status: one per transition, none where nothing of note changed."""
    found = []
    if before.active is State.PENDING and now.active not in {State.PENDING, State.FAILED}:
        found.append(Notice("Normal", "Registered", f"Registered with the mesh as {model_id}"))
    if now.failure is not None and not _same_failure(before.failure, now.failure):
        found.append(_failure_notice(now.failure))
    if _is_loading(now) and not _is_loading(before):
        found.append(Notice("Normal", LOADING, f"Loading {model_id}"))
    promoted = before.target is not State.NONE and now.target is State.NONE and now.failure is None
    if now.active is State.LOADED and (promoted or before.active is not State.LOADED):
        found.append(Notice("Normal", "Loaded", f"{model_id} is loaded and serves requests"))
    if now.active is State.STANDBY and before.active is State.LOADED:
        found.append(Notice("Normal", "Unloaded", f"{model_id} left memory; its next request loads it"))
    return found


def _is_loading(status: ModelStatus) -> bool:
    return State.LOADING in {status.active, status.target}

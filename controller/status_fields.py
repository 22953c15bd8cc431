"""How Predictor and InferenceService spell a `ModelStatus`.

Reading gives the previous status back; writing lays ours over what is there, so that fields and conditions
of other parties survive. A condition's `lastTransitionTime` moves only when its status does.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from controller.readiness import explain
from controller.status import Failure, ModelStatus, Reason, State, Transition, Urls

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controller.readiness import Explanation

JSON = dict[str, Any]

CONDITIONS = ("PredictorReady", "Ready")


class StatusFields(Protocol):
    """Reads and writes the status of one kind."""

    def read(self, obj: JSON) -> ModelStatus:
        """Returns the status an object shows."""
        ...

    def write(self, obj: JSON, status: ModelStatus, now: datetime) -> JSON:
        """Returns the object's field `status` with `status` laid over it."""
        ...


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _read_failure(info: JSON | None, id_field: str) -> Failure | None:
    if not info or "reason" not in info:
        return None
    try:
        reason = Reason(info["reason"])
    except ValueError:
        # One that only KServe writes.
        return None
    return Failure(
        reason=reason,
        message=info.get("message", ""),
        model_id=info.get(id_field, ""),
        location=info.get("location", ""),
        time=datetime.fromisoformat(info["time"]) if info.get("time") else None,
    )


def _failure_json(failure: Failure, id_field: str) -> JSON:
    fields = {
        "reason": str(failure.reason),
        "message": failure.message,
        "location": failure.location,
        id_field: failure.model_id,
        "time": _stamp(failure.time) if failure.time else "",
    }
    return {name: value for name, value in fields.items() if value}


def _laid_over(base: JSON, fields: JSON) -> JSON:
    """Sets the given fields; None removes one."""
    return {name: value for name, value in (base | fields).items() if value is not None}


class PredictorFields:
    """Status of a Predictor."""

    def read(self, obj: JSON) -> ModelStatus:
        """Returns the status an object shows."""
        status = obj.get("status") or {}
        return ModelStatus(
            available=status.get("available", False),
            transition=Transition(status.get("transitionStatus") or Transition.UP_TO_DATE),
            active=State(status.get("activeModelState") or State.PENDING),
            target=State(status.get("targetModelState", "")),
            failure=_read_failure(status.get("lastFailureInfo"), "modelId"),
            failed_copies=status.get("failedCopies", 0),
            total_copies=status.get("totalCopies", 0),
            urls=Urls(status.get("grpcEndpoint", ""), status.get("httpEndpoint", "")),
        )

    def write(self, obj: JSON, status: ModelStatus, now: datetime) -> JSON:
        """Returns the object's field `status` with `status` laid over it."""
        before = obj.get("status") or {}
        failure = status.failure
        return _laid_over(
            before,
            {
                "available": status.available,
                "transitionStatus": str(status.transition),
                "activeModelState": str(status.active),
                "targetModelState": str(status.target),
                "lastFailureInfo": None if failure is None else _failure_json(failure, "modelId"),
                "grpcEndpoint": status.urls.grpc,
                "httpEndpoint": status.urls.rest,
                "failedCopies": status.failed_copies,
                "totalCopies": status.total_copies,
                "conditions": conditions(before, ("Ready",), explain(status), now, true=status.available),
                "observedGeneration": obj["metadata"].get("generation"),
            },
        )


class InferenceServiceFields:
    """Status of an InferenceService."""

    def read(self, obj: JSON) -> ModelStatus:
        """Returns the status an object shows."""
        status = obj.get("status") or {}
        model = status.get("modelStatus") or {}
        states = model.get("states") or {}
        copies = model.get("copies") or {}
        component = (status.get("components") or {}).get("predictor") or {}
        ready = {c.get("type"): c.get("status") for c in status.get("conditions") or ()}
        return ModelStatus(
            available=ready.get("PredictorReady") == "True",
            transition=Transition(model.get("transitionStatus") or Transition.UP_TO_DATE),
            active=State(states.get("activeModelState") or State.PENDING),
            target=State(states.get("targetModelState", "")),
            failure=_read_failure(model.get("lastFailureInfo"), "modelRevisionName"),
            failed_copies=copies.get("failedCopies", 0),
            total_copies=copies.get("totalCopies", 0),
            urls=Urls(component.get("grpcUrl", ""), component.get("restUrl", "")),
        )

    def write(self, obj: JSON, status: ModelStatus, now: datetime) -> JSON:
        """Returns the object's field `status` with `status` laid over it."""
        before = obj.get("status") or {}
        failure = status.failure
        grpc = status.urls.grpc or None if status.available else None
        rest = status.urls.rest or None if status.available else None
        components = before.get("components") or {}
        component = _laid_over(
            components.get("predictor") or {},
            {"url": grpc, "grpcUrl": grpc, "restUrl": rest},
        )
        components = _laid_over(components, {"predictor": component or None})
        model = _laid_over(
            before.get("modelStatus") or {},
            {
                "transitionStatus": str(status.transition),
                "states": {"activeModelState": str(status.active), "targetModelState": str(status.target)},
                "copies": {"failedCopies": status.failed_copies, "totalCopies": status.total_copies},
                "lastFailureInfo": None if failure is None else _failure_json(failure, "modelRevisionName"),
            },
        )
        return _laid_over(
            before,
            {
                "url": grpc,
                "components": components or None,
                "conditions": conditions(before, CONDITIONS, explain(status), now, true=status.available),
                "modelStatus": model,
                "observedGeneration": obj["metadata"].get("generation"),
            },
        )


def conditions(
    before: JSON, types: Iterable[str], explanation: Explanation, now: datetime, *, true: bool
) -> list[JSON]:
    """Returns the conditions of a status with ours laid over them, by type; those of others stay.

    Args:
        before: the status so far.
        types: of our conditions, which all say the same.
        explanation: reason and message.
        now: for a condition that changes.
        true: whether ours are True.
    """
    by_type = {str(condition.get("type")): condition for condition in before.get("conditions") or ()}
    value = "True" if true else "False"
    for type_ in types:
        old = by_type.get(type_, {})
        unchanged = old.get("status") == value and old.get("lastTransitionTime")
        by_type[type_] = old | {
            "type": type_,
            "status": value,
            "reason": explanation.reason,
            "message": explanation.message,
            "lastTransitionTime": old["lastTransitionTime"] if unchanged else _stamp(now),
        }
    return [by_type[type_] for type_ in sorted(by_type)]

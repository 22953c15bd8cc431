from dataclasses import replace
from pathlib import Path

import pytest

from controller.readiness import ACCEPTED, explain, notices
from controller.readiness import LOADING as LOADING_REASON
from controller.readiness import WAITING as WAITING_REASON
from controller.runtime_status import REASONS
from controller.status import WAITING_FOR_POD, Failure, ModelStatus, Reason, State, Transition

FRESH = ModelStatus()
WAITING = ModelStatus(failure=Failure(Reason.RUNTIME_UNHEALTHY, WAITING_FOR_POD, "m"))
LOADING_BEHIND = replace(WAITING, active=State.LOADING)
LOADING = ModelStatus(available=True, active=State.LOADING)
LOADED = ModelStatus(available=True, active=State.LOADED)
FAILED = ModelStatus(active=State.FAILED, failure=Failure(Reason.LOAD_FAILED, "boom", "m", "pod"))
UNSUPPORTED = ModelStatus(active=State.FAILED, failure=Failure(Reason.NO_SUPPORTING_RUNTIME, "none"))
UNKNOWN_RUNTIME = ModelStatus(active=State.FAILED, failure=Failure(Reason.RUNTIME_NOT_RECOGNIZED, "r"))
INVALID = ModelStatus(transition=Transition.INVALID, failure=Failure(Reason.INVALID_SPEC, "bad"))


@pytest.mark.parametrize(
    ("status", "reason", "message"),
    [
        (FRESH, "Accepted", "Accepted; the mesh is told of it once a runtime pod is ready"),
        (WAITING, "WaitingForRuntime", f"{WAITING_FOR_POD}: no pod is ready yet, `kubectl get"),
        (replace(WAITING, runtimes=("a", "b")), "WaitingForRuntime", "no pod of a or b is ready yet"),
        (replace(LOADING_BEHIND, loads=True), "Loading", "being loaded by a pod that has become ready"),
        (UNSUPPORTED, "NoSupportingRuntime", "apply a ServingRuntime that lists the format"),
        (UNKNOWN_RUNTIME, "RuntimeNotRecognized", "correct the runtime's name"),
        (LOADING, "Loading", "being loaded"),
        (LOADED, "Loaded", "serves requests"),
        (ModelStatus(available=True, active=State.STANDBY), "Standby", "first request loads it"),
        (FAILED, "ModelLoadFailed", "boom"),
        (INVALID, "InvalidPredictorSpec", "bad"),
        (
            replace(LOADED, transition=Transition.BLOCKED, failure=FAILED.failure),
            "BlockedByFailedLoad",
            "Serves the previous model; boom",
        ),
        (replace(LOADED, failure=WAITING.failure), "WaitingForRuntime", WAITING_FOR_POD),
        (replace(LOADED, transition=Transition.IN_PROGRESS, target=State.LOADING), "InProgress", "previous"),
        (
            replace(LOADED, transition=Transition.INVALID, failure=INVALID.failure),
            "InvalidPredictorSpec",
            "Serves the previous model; bad",
        ),
    ],
)
def test_the_ready_condition_says_why(status: ModelStatus, reason: str, message: str) -> None:
    explanation = explain(status)
    assert explanation.reason == reason
    assert message in explanation.message


def test_every_reason_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "status.md").read_text()
    words = {*Reason, *State, *Transition, ACCEPTED, LOADING_REASON, WAITING_REASON, *REASONS.values()} - {""}
    assert [word for word in words if f"`{word}`" not in page] == []


@pytest.mark.parametrize(
    ("before", "now", "reasons"),
    [
        (FRESH, FRESH, []),
        (FRESH, WAITING, ["WaitingForRuntime"]),
        (WAITING, WAITING, []),
        (WAITING, LOADING_BEHIND, ["Registered", "Loading"]),
        (LOADING_BEHIND, LOADED, ["Loaded"]),
        (FRESH, LOADING, ["Registered", "Loading"]),
        (LOADING, LOADED, ["Loaded"]),
        (FRESH, LOADED, ["Registered", "Loaded"]),
        (LOADED, LOADED, []),
        (LOADING, FAILED, ["LoadFailed"]),
        (FAILED, FAILED, []),
        (FAILED, LOADED, ["Loaded"]),
        (FRESH, INVALID, ["InvalidSpec"]),
        (LOADED, ModelStatus(available=True, active=State.STANDBY), ["Unloaded"]),
        (
            LOADED,
            replace(LOADED, target=State.LOADING, transition=Transition.IN_PROGRESS),
            ["Loading"],
        ),
        (replace(LOADED, target=State.LOADING, transition=Transition.IN_PROGRESS), LOADED, ["Loaded"]),
        (
            FRESH,
            ModelStatus(active=State.FAILED, failure=Failure(Reason.NO_SUPPORTING_RUNTIME, "none")),
            ["NoSupportingRuntime"],
        ),
    ],
)
def test_each_transition_gives_its_events_once(
    before: ModelStatus,
    now: ModelStatus,
    reasons: list[str],
) -> None:
    assert [notice.reason for notice in notices(before, now, "m")] == reasons

from collections.abc import Sequence
from typing import Any

import pytest

from api.meta import JSON
from local.podstatus import ContainerState, phase_of, pod_status, terminated, waiting

RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def state(value: JSON, **facts: Any) -> ContainerState:
    return ContainerState("c", "image", state=value, **facts)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([state(waiting("ContainerCreating"))], "Pending"),
        ([state(RUNNING), state(waiting("ContainerCreating"))], "Running"),
        ([state(waiting("CrashLoopBackOff"), restarts=1)], "Running"),
        ([state(terminated(0, "", "", 1)), state(terminated(0, "", "", 2))], "Succeeded"),
        ([state(terminated(0, "", "", 1)), state(terminated(3, "", "", 2))], "Failed"),
        ([state(terminated(0, "", "", 1)), state(RUNNING)], "Running"),
    ],
)
def test_the_phase_follows_from_the_containers(states: list[ContainerState], expected: Any) -> None:
    assert phase_of(states) == expected


def conditions(
    states: list[ContainerState], previous: Sequence[JSON] = (), now: str = "later"
) -> dict[str, JSON]:
    status = pod_status(states, started="start", now=now, previous=previous)
    return {condition["type"]: condition for condition in status["conditions"]}


def test_a_pod_is_ready_when_all_containers_are() -> None:
    assert conditions([state(RUNNING, ready=True)])["Ready"]["status"] == "True"
    found = conditions([state(RUNNING, ready=True), state(RUNNING)])["Ready"]
    assert (found["status"], found["reason"]) == ("False", "ContainersNotReady")
    assert "[c]" in found["message"]


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    before = [{"type": "Ready", "status": "False", "lastTransitionTime": "then"}]
    assert conditions([state(RUNNING)], before)["Ready"]["lastTransitionTime"] == "then"
    assert conditions([state(RUNNING, ready=True)], before)["Ready"]["lastTransitionTime"] == "later"


def test_a_container_shows_its_process_and_its_last_end() -> None:
    shown = state(RUNNING, ready=True, restarts=2, last=terminated(137, "a", "b", 7), pid=9).dump()
    assert shown["containerID"] == "process://9"
    assert shown["restartCount"] == 2
    assert shown["lastState"]["terminated"]["exitCode"] == 137

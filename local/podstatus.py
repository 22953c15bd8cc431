"""The status that a pod shows, as a function of its containers' states."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from local.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from api.meta import JSON


@dataclass(slots=True)
class ContainerState:
    """What the pod runner knows about one container.

    Attributes:
        state: `waiting`, `running` or `terminated`, as in the Kubernetes API.
        last: the same of the run before.
        ready: whether it runs and its readiness probe succeeded.
        restarts: how often it was started again.
        pid: its process; 0 when none runs.
    """

    name: str
    image: str
    state: JSON = field(default_factory=lambda: waiting("ContainerCreating"))
    last: JSON = field(default_factory=dict)
    ready: bool = False
    restarts: int = 0
    pid: int = 0

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return "running" in self.state

    def dump(self) -> JSON:
        """Return the state as an entry of `containerStatuses`."""
        status = {
            "name": self.name,
            "image": self.image,
            "imageID": "",
            "ready": self.ready,
            "started": self.running,
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self.last,
        }
        return status | ({"containerID": f"process://{self.pid}"} if self.pid else {})


def waiting(reason: str, message: str = "") -> JSON:
    """Return the state of a container that does not run yet, or not now."""
    return {"waiting": {"reason": reason} | ({"message": message} if message else {})}


def terminated(code: int, started: str, finished: str, pid: int) -> JSON:
    """Return the state of a container that ended with exit status `code`."""
    return {
        "terminated": {
            "exitCode": code,
            "reason": "Completed" if code == 0 else "Error",
            "startedAt": started,
            "finishedAt": finished,
            "containerID": f"process://{pid}",
        },
    }


def phase_of(states: Iterable[ContainerState]) -> str:
    """Return the pod's phase."""
    states = list(states)
    finished = [state.state["terminated"]["exitCode"] for state in states if "terminated" in state.state]
    if states and len(finished) == len(states):
        return "Failed" if any(finished) else "Succeeded"
    started = any(state.running or state.restarts or "terminated" in state.state for state in states)
    return "Running" if started else "Pending"


def pod_status(states: Sequence[ContainerState], *, started: str, now: str, previous: Sequence[JSON]) -> JSON:
    """Return a pod's `status`.

    Args:
        states: its containers.
        started: when the pod was first seen, RFC 3339.
        now: the present time, RFC 3339.
        previous: the conditions written last; one whose status stays keeps its transition time.
    """
    unready = [state.name for state in states if not state.ready]
    ready: JSON = {"status": "True"}
    if unready:
        names = " ".join(unready)
        ready = {
            "status": "False",
            "reason": "ContainersNotReady",
            "message": f"containers with unready status: [{names}]",
        }
    times = {(item["type"], item["status"]): item["lastTransitionTime"] for item in previous}
    conditions = [
        {"type": kind, **value, "lastTransitionTime": times.get((kind, value["status"]), now)}
        for kind, value in (
            ("PodScheduled", {"status": "True"}),
            ("Initialized", {"status": "True"}),
            ("ContainersReady", ready),
            ("Ready", ready),
        )
    ]
    return {
        "phase": phase_of(states),
        "hostIP": LOOPBACK,
        "podIP": LOOPBACK,
        "podIPs": [{"ip": LOOPBACK}],
        "startTime": started,
        "qosClass": "Burstable",
        "conditions": conditions,
        "containerStatuses": [state.dump() for state in states],
    }

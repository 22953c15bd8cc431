"""A cluster as kubectl shows it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fvt.waiting import wait

if TYPE_CHECKING:
    from pathlib import Path

JSON = dict[str, Any]
SERVICE = "modelmesh-serving"
RUNTIME_PODS = f"modelmesh-service={SERVICE}"
CONTROLLER_PODS = "control-plane=modelmesh-controller"


class KubectlError(AssertionError):
    """kubectl ended with an error."""


@dataclass(frozen=True)
class Cluster:
    """A kubeconfig and the namespace that is looked at.

    Attributes:
        kubeconfig: the file; None leaves the choice to kubectl.
        namespace: added to every command.
    """

    kubeconfig: Path | None
    namespace: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which commands talk to this cluster."""
        chosen = {} if self.kubeconfig is None else {"KUBECONFIG": str(self.kubeconfig)}
        return os.environ | chosen

    def within(self, namespace: str) -> Cluster:
        """Return the same cluster, looking at another namespace."""
        return replace(self, namespace=namespace)

    def run(
        self, *arguments: str, stdin: str | None = None, seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl and return how it ended."""
        return subprocess.run(
            ["kubectl", "--namespace", self.namespace, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
            env=self.environment,
        )

    def kubectl(self, *arguments: str, stdin: str | None = None, seconds: float = 120) -> str:
        """Run kubectl and return its standard output.

        Raises:
            KubectlError: it failed; has the command and its words.
        """
        done = self.run(*arguments, stdin=stdin, seconds=seconds)
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *objects: JSON) -> str:
        """Apply objects; return what kubectl prints."""
        return self.kubectl("apply", "-f", "-", stdin=json.dumps(_as_list(objects)))

    def refusal(self, obj: JSON) -> str:
        """Apply an object that must be refused; return kubectl's words."""
        done = self.run("apply", "-f", "-", stdin=json.dumps(obj))
        assert done.returncode, f"was accepted: {obj}"
        return done.stderr

    def delete(self, *arguments: str) -> None:
        """Delete objects where they are there, and wait until they are gone."""
        self.kubectl("delete", "--ignore-not-found", *arguments)

    def patch(self, kind: str, name: str, content: JSON) -> None:
        """Merge `content` into an object."""
        self.kubectl("patch", kind, name, "--type=merge", "--patch", json.dumps(content))

    def get(self, kind: str, name: str) -> JSON:
        """Return an object.

        Raises:
            KubectlError: there is none.
        """
        return json.loads(self.kubectl("get", kind, name, "--output=json"))  # type: ignore[no-any-return]

    def find(self, kind: str, name: str) -> JSON | None:
        """Return an object, None where there is none."""
        found = self.kubectl("get", kind, name, "--output=json", "--ignore-not-found")
        return json.loads(found) if found.strip() else None

    def items(self, kind: str, selector: str = "") -> list[JSON]:
        """Return the objects of a kind in this namespace, chosen by labels."""
        arguments = ["get", kind, "--output=json", *([f"--selector={selector}"] if selector else [])]
        return json.loads(self.kubectl(*arguments))["items"]  # type: ignore[no-any-return]

    def status(self, kind: str, name: str) -> JSON:
        """Return the status of an object, empty while it has none."""
        return self.get(kind, name).get("status", {})  # type: ignore[no-any-return]

    def ready_pods(self, selector: str) -> list[JSON]:
        """Return the pods whose containers are all ready and that are not going away."""
        return [pod for pod in self.items("pods", selector) if is_ready(pod)]

    def wait_ready(self, kind: str, name: str, seconds: float = 240) -> JSON:
        """Wait until a model is served in its newest form; return the status."""

        def look() -> JSON | None:
            found = self.get(kind, name)
            status = found.get("status", {})
            states = model_status(status)
            summary = {
                "ready": condition(status),
                "current": status.get("observedGeneration") == found["metadata"]["generation"],
                "transition": states["transition"],
                "active": states["active"],
            }
            good = {"ready": "True", "current": True, "transition": "UpToDate", "active": "Loaded"}
            assert summary == good, f"{summary}, {states['failure']}"
            return status  # type: ignore[no-any-return]

        return wait(look, f"{kind} {name} to be served", seconds) or {}

    def wait_failure(self, kind: str, name: str, reason: str, seconds: float = 180) -> JSON:
        """Wait until a model tells of a failure with `reason`; return what it tells."""

        def look() -> JSON | None:
            states = model_status(self.status(kind, name))
            failure: JSON = states["failure"]
            assert failure.get("reason") == reason, f"{states}"
            return failure

        return wait(look, f"{kind} {name} to fail with {reason}", seconds) or {}

    def wait_deployment(self, name: str, replicas: int, seconds: float = 300) -> JSON:
        """Wait until a Deployment is rolled out with so many pods, all ready; return it."""

        def look() -> JSON | None:
            found = self.get("deployment", name)
            status = found.get("status", {})
            assert status.get("observedGeneration") == found["metadata"]["generation"], "not seen yet"
            counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "readyReplicas")]
            assert found["spec"]["replicas"] == replicas, f"{found['spec']['replicas']} replicas are wanted"
            assert counts == [replicas] * 3, f"replicas, updated, ready: {counts}"
            return found

        return wait(look, f"deployment {name} to have {replicas} ready pods", seconds) or {}


def is_ready(pod: JSON) -> bool:
    """Return whether all containers of a pod are ready and it is not going away."""
    statuses = pod.get("status", {}).get("containerStatuses", [])
    return bool(
        "deletionTimestamp" not in pod["metadata"]
        and len(statuses) == len(pod["spec"]["containers"])
        and all(status["ready"] for status in statuses)
    )


def condition(status: JSON, kind: str = "Ready") -> str:
    """Return `True`, `False` or `Unknown` of a condition, empty where it is not there."""
    return next((str(item["status"]) for item in status.get("conditions", []) if item["type"] == kind), "")


def model_status(status: JSON) -> JSON:
    """Return what an InferenceService and a Predictor tell of their model, under the same names."""
    of_isvc = status.get("modelStatus")
    source = status if of_isvc is None else of_isvc
    states = status if of_isvc is None else of_isvc.get("states", {})
    return {
        "active": states.get("activeModelState", ""),
        "target": states.get("targetModelState", ""),
        "transition": source.get("transitionStatus", ""),
        "failure": source.get("lastFailureInfo", {}),
    }


def _as_list(objects: tuple[JSON, ...]) -> JSON:
    return {"apiVersion": "v1", "kind": "List", "items": list(objects)}

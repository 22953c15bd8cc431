"""Pods that are killed come back, and with them what they did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from fvt.cluster import CONTROLLER_PODS, RUNTIME_PODS
from fvt.inference import EIGHT
from fvt.objects import isvc
from fvt.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from fvt.cluster import JSON, Cluster
    from fvt.inference import Inference

MLSERVER = "name=modelmesh-serving-mlserver-1.x"


def kill(cluster: Cluster, selector: str) -> None:
    """Kill a pod without grace, and wait for another one to be ready."""
    (pod,) = wait(lambda: cluster.ready_pods(selector), f"a pod of {selector}")
    cluster.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")

    def look() -> JSON | None:
        ready = cluster.ready_pods(selector)
        assert ready, "none is ready"
        assert ready[0]["metadata"]["uid"] != pod["metadata"]["uid"]
        return ready[0]

    wait(look, f"another pod of {selector}")


def wait_for_answer(inference: Inference, name: str) -> None:
    """Wait until a digit model gives the right answer."""

    def look() -> bool:
        try:
            return inference.digit(name) == 8
        except grpc.RpcError as error:
            raise AssertionError(f"{error.code()}: {error.details()}") from error

    wait(look, "an answer")


def test_models_are_served_while_the_controller_is_away_and_new_ones_after_it(
    installed: Cluster, inference: Inference, name: str, needs: Callable[[str], None]
) -> None:
    needs("mlserver")
    later = f"{name}-later"
    installed.apply(isvc(name))
    installed.wait_ready("isvc", name)
    installed.kubectl("scale", "deployment", "modelmesh-controller", "--replicas=0")
    try:
        wait(lambda: not installed.items("pods", CONTROLLER_PODS), "the controller to be gone")
        assert inference.digit(name) == 8
        installed.apply(isvc(later))
        installed.delete("isvc", name)
    finally:
        installed.kubectl("scale", "deployment", "modelmesh-controller", "--replicas=1")
    try:
        installed.wait_ready("isvc", later)
        assert inference.digit(later) == 8
        # Deleted while nobody looked: the mesh forgets it when the controller is back.
        wait(lambda: inference.rest_row(name, EIGHT).status_code == 404, f"{name} to be unknown to the mesh")
    finally:
        installed.delete("isvc", later)


def test_a_killed_controller_goes_on(
    installed: Cluster, inference: Inference, name: str, needs: Callable[[str], None]
) -> None:
    needs("mlserver")
    kill(installed, CONTROLLER_PODS)
    installed.apply(isvc(name))
    installed.wait_ready("isvc", name)
    assert inference.digit(name) == 8


def test_a_model_of_a_killed_pod_is_served_again(
    installed: Cluster, inference: Inference, name: str, needs: Callable[[str], None]
) -> None:
    needs("mlserver")
    installed.apply(isvc(name))
    installed.wait_ready("isvc", name)
    kill(installed, MLSERVER)
    wait_for_answer(inference, name)
    installed.wait_ready("isvc", name)


def test_a_killed_model_server_gets_its_models_again(
    installed: Cluster, inference: Inference, name: str, needs: Callable[[str], None]
) -> None:
    needs("mlserver")
    installed.apply(isvc(name))
    installed.wait_ready("isvc", name)
    (pod,) = installed.ready_pods(MLSERVER)
    before = _restarts(pod)
    killing = "import os, signal; os.kill(1, signal.SIGTERM)"
    installed.run("exec", pod["metadata"]["name"], "-c", "mlserver", "--", "python3", "-c", killing)

    def restarted() -> bool:
        found = installed.get("pod", pod["metadata"]["name"])
        assert _restarts(found) > before
        return True

    wait(restarted, "MLServer to be started again")
    wait_for_answer(inference, name)


def test_the_registry_is_written_again_after_etcd_lost_it(
    installed: Cluster, inference: Inference, name: str, needs: Callable[[str], None]
) -> None:
    needs("mlserver")
    installed.apply(isvc(name))
    installed.wait_ready("isvc", name)
    kill(installed, "app=etcd")
    assert installed.ready_pods(RUNTIME_PODS)
    wait_for_answer(inference, name)
    later = f"{name}-later"
    try:
        installed.apply(isvc(later))
        installed.wait_ready("isvc", later)
        assert inference.digit(later) == 8
    finally:
        installed.delete("isvc", later)


def _restarts(pod: JSON) -> int:
    return next(
        int(status["restartCount"])
        for status in pod["status"]["containerStatuses"]
        if status["name"] == "mlserver"
    )

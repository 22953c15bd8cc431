"""Processes that are killed come back, and requests with them, without anyone acting."""

import os
import signal

import grpc
import pytest

from tests.e2e.conftest import Machine, until


def answers(machine: Machine) -> bool:
    return machine.infer("digits").outputs[0].contents.int64_contents[0] == 8


def test_the_next_request_after_mlserver_was_killed_is_served(digits: Machine) -> None:
    assert answers(digits)
    before = digits.container_pid("mlserver")
    os.kill(before, signal.SIGKILL)
    assert answers(digits)
    assert digits.infer_rest("digits").json()["outputs"][0]["data"] == [8]
    assert digits.container_pid("mlserver") not in {0, before}


@pytest.mark.parametrize("container", ["mm", "mlserver-adapter"])
def test_a_killed_part_of_the_pod_comes_back(digits: Machine, container: str) -> None:
    before = digits.container_pid(container)
    os.kill(before, signal.SIGKILL)
    until(lambda: digits.container_pid(container) not in {0, before}, f"{container} to be started again")

    def served() -> bool:
        try:
            return answers(digits)
        except grpc.RpcError:
            return False

    until(served, "the model to be served again")
    digits.wait_ready("digits")


def test_a_killed_controller_comes_back(digits: Machine) -> None:
    def pid() -> int:
        (pod,) = digits.get("pods", "-l", "control-plane=modelmesh-controller")["items"]
        status = pod["status"]["containerStatuses"][0]
        return int(status["containerID"].removeprefix("process://")) if status["ready"] else 0

    before = pid()
    os.kill(before, signal.SIGKILL)
    until(lambda: pid() not in {0, before}, "the controller to be ready again")
    assert answers(digits)

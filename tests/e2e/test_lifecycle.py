"""A cluster starts once, says what is in its way, and leaves nothing behind however it ends."""

import os
import signal
import socket
import subprocess

import psutil
import pytest

from tests.e2e.conftest import Machine, processes_of, until


@pytest.fixture
def foreground(machine: Machine) -> subprocess.Popen[str]:
    """`modelmesh local up` without --detach, once it is up."""
    process = subprocess.Popen(
        machine.command("up", "--no-samples"),
        env=machine.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if "Ctrl-C" in line:
            break
    else:
        pytest.fail("".join(seen))
    return process


def ends(process: subprocess.Popen[str], machine: Machine) -> None:
    process.communicate(timeout=30)
    until(lambda: not processes_of(machine.home.root), "all processes to end", 20)
    until(lambda: not machine.home.is_running(), "the lock to be free", 5)


def family(process: subprocess.Popen[str]) -> tuple[psutil.Process, psutil.Process]:
    """Return guardian and supervisor."""
    (guardian,) = psutil.Process(process.pid).children()
    (supervisor,) = guardian.children()
    return guardian, supervisor


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything(
    machine: Machine, foreground: subprocess.Popen[str], number: signal.Signals
) -> None:
    os.killpg(foreground.pid, number)
    ends(foreground, machine)


def test_kill_9_of_the_command_ends_everything(machine: Machine, foreground: subprocess.Popen[str]) -> None:
    foreground.kill()
    ends(foreground, machine)


def test_kill_9_of_the_supervisor_ends_everything(
    machine: Machine, foreground: subprocess.Popen[str]
) -> None:
    _, supervisor = family(foreground)
    supervisor.kill()
    ends(foreground, machine)


def test_kill_9_of_the_guardian_ends_everything(machine: Machine, foreground: subprocess.Popen[str]) -> None:
    guardian, _ = family(foreground)
    guardian.kill()
    ends(foreground, machine)


def test_kill_9_of_all_three_ends_everything(machine: Machine, foreground: subprocess.Popen[str]) -> None:
    guardian, supervisor = family(foreground)
    for process in (supervisor, guardian):
        process.suspend()
    for process in (supervisor, guardian):
        process.kill()
    foreground.kill()
    ends(foreground, machine)


def test_up_status_and_down_from_other_terminals(machine: Machine) -> None:
    assert "down" in machine.local("up", "--detach", "--no-samples").stdout
    status = machine.local("status").stdout
    assert "ready      yes" in status
    assert "modelmesh-controller" in status
    second = machine.local("up", "--detach", check=False)
    assert second.returncode == 1
    assert "runs already" in second.stdout
    assert "Starting" not in machine.local("logs", "etcd").stdout
    assert "manager" in machine.local("logs", "modelmesh-controller").stdout
    assert machine.local("kubeconfig").stdout.strip() == str(machine.home.kubeconfig)
    assert "Stopped" in machine.local("down").stdout
    assert processes_of(machine.home.root) == []
    assert "No local cluster runs" in machine.local("down").stdout


@pytest.mark.parametrize("port", ["grpc", "rest", "api"])
def test_a_taken_port_is_named_with_the_process_to_stop(machine: Machine, port: str) -> None:
    number = getattr(machine, f"{port}_port")
    with socket.create_server(("127.0.0.1", number)):
        done = machine.local("up", "--detach", check=False)
    assert done.returncode == 1
    assert f"port {number}" in done.stdout
    assert f"kill {os.getpid()}" in done.stdout
    assert f"--{port}-port" in done.stdout
    assert processes_of(machine.home.root) == []


def test_manifests_are_applied_at_the_start_and_a_bad_one_stops_it(machine: Machine) -> None:
    done = machine.local("up", "--detach", "--no-samples", "-f", "/nonexistent.yaml", check=False)
    assert done.returncode == 1
    assert "/nonexistent.yaml" in done.stdout
    assert processes_of(machine.home.root) == []
    example = "config/example-isvcs/example-sklearn-isvc.yaml"
    machine.local("up", "--detach", "--no-samples", "-f", example)
    assert machine.get("isvc")["items"][0]["metadata"]["name"] == "example-sklearn-isvc"

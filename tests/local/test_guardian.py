import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

SCRIPT = """
import os, subprocess, sys, time
from local.guardian import guard

def supervise():
    escaped = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)
    print(os.getpid(), escaped.pid, flush=True)
    time.sleep(float(sys.argv[1]))
    return 7

sys.exit(guard(supervise))
"""


@pytest.fixture
def guarded():  # noqa: ANN201 -- a factory
    started: list[subprocess.Popen[str]] = []

    def start(seconds: float) -> tuple[subprocess.Popen[str], int, int]:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(seconds)],
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        supervisor, escaped = map(int, process.stdout.readline().split())
        return process, supervisor, escaped

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def ends(pid: int, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_the_supervisors_status_is_passed_on_and_what_it_left_behind_is_ended(guarded) -> None:  # noqa: ANN001
    process, _, escaped = guarded(0)
    assert process.wait(10) == 7
    assert ends(escaped, 0)


def test_a_killed_supervisor_leaves_nothing_behind(guarded) -> None:  # noqa: ANN001
    process, supervisor, escaped = guarded(600)
    os.kill(supervisor, signal.SIGKILL)
    assert process.wait(10) == 128 + signal.SIGKILL
    assert ends(escaped, 0)


def test_sigterm_reaches_the_supervisor(guarded) -> None:  # noqa: ANN001
    process, supervisor, escaped = guarded(600)
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGTERM
    assert ends(supervisor, 0)
    assert ends(escaped, 0)


def test_the_supervisor_gets_sigterm_when_the_guardian_is_killed(guarded) -> None:  # noqa: ANN001
    process, supervisor, escaped = guarded(600)
    process.kill()
    process.wait()
    assert ends(supervisor)
    os.kill(escaped, signal.SIGKILL)

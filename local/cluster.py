"""Starting and stopping a cluster from another process.

The cluster runs in a session of its own, so a signal to the terminal's process group reaches only the process
that waits for it, which passes it on. Three processes hold a cluster: this one (until it detaches), the
guardian and the supervisor; see `guardian.py` for what happens when one of them is killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, NoReturn

from local import guardian
from local.errors import LocalError, StartFailedError
from local.home import TUPLES, ClusterState, Settings
from local.node import without_proxy
from local.progress import relay

if TYPE_CHECKING:
    from local.home import Home
    from local.progress import ConsoleProgress

_STOP_SECONDS = 30.0
"""Until a cluster that was asked to stop is killed; it needs about three."""


def start(
    home: Home, settings: Settings, progress: ConsoleProgress, *, lifeline: bool
) -> subprocess.Popen[str]:
    """Start a cluster and wait until it is ready, showing its progress.

    Args:
        home: its folder.
        settings: its ports and manifests.
        progress: where its steps are shown.
        lifeline: whether the cluster ends with this process.

    Returns:
        The guardian. Its standard input is the lifeline: closing it ends the cluster.

    Raises:
        AlreadyRunningError: this home has a cluster.
        StartFailedError: it did not come up; nothing of it is left.
    """
    home.lock().close()
    command = [sys.executable, "-m", "modelmesh", "local", "supervise", json.dumps(asdict(settings))]
    with home.supervisor_log.open("wb") as errors:
        process = subprocess.Popen(  # noqa: S603
            [*command, *(["--lifeline"] if lifeline else [])],
            stdin=subprocess.PIPE if lifeline else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            env={
                **os.environ,
                **without_proxy(os.environ),
                "MODELMESH_HOME": str(home.root),
                "MODELMESH_CACHE": str(home.cache),
            },
            text=True,
        )
    if process.stdout is None:
        raise AssertionError("standard output is a pipe")
    try:
        failure = relay(process.stdout, progress)
    except BaseException:
        progress.close()
        wait(process, stop=True)
        raise
    progress.close()
    if failure is not None:
        wait(process, stop=True)
        raise StartFailedError(failure or f"the supervisor ended; its log is {home.supervisor_log}")
    return process


def wait(process: subprocess.Popen[str], *, stop: bool = False) -> int:
    """Wait for the end of a cluster; SIGINT, SIGTERM and SIGHUP to this process, or `stop`, cause it."""

    def end(*_: object) -> None:
        process.terminate()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    if stop:
        end()
    return process.wait()


def stop(home: Home) -> bool:
    """Stop the cluster of `home` and wait until all of its processes are gone; False if there was none.

    Raises:
        LocalError: it does not stop.
    """
    if not home.is_running():
        return False
    state = home.read_state()
    os.kill(state.pid, signal.SIGTERM)
    if not home.wait_until_stopped(_STOP_SECONDS):
        raise LocalError(f"process {state.pid} does not stop; kill it with: kill -9 {state.pid}")
    return True


def supervise(home: Home, settings: str, *, lifeline: bool) -> NoReturn:
    """Become the guardian of a cluster, and its supervisor in a child process; exit with its status.

    The lock is let go by the end of this process and by nothing before, so a free lock means that it is gone.

    Args:
        home: its folder.
        settings: the fields of `Settings` as JSON.
        lifeline: whether the end of standard input ends the cluster.
    """
    raw = json.loads(settings)
    chosen = Settings(**raw | {name: tuple(raw[name]) for name in TUPLES})
    with home.lock():
        home.write_state(ClusterState(os.getpid(), chosen))
        status = guardian.guard(lambda: _supervise(home, chosen, lifeline=lifeline))
        sys.stderr.flush()
        os._exit(status)


def _supervise(home: Home, settings: Settings, *, lifeline: bool) -> int:
    from local import supervisor  # noqa: PLC0415 -- the guardian stays small
    from modelmesh import logs  # noqa: PLC0415

    logs.configure("local")
    return supervisor.supervise(home, settings, lifeline=lifeline)

"""Keeps the promise that no process outlives its cluster, whatever ends the supervisor.

The guardian forks: the child becomes the supervisor, the parent does nothing but wait. As a child subreaper
it inherits every process that the supervisor leaves behind, so when the supervisor ends, by kill -9 too, the
guardian ends all of them. If the guardian itself is killed, the supervisor gets SIGTERM and stops in order.
If both are killed in the same moment, each container still gets SIGKILL as its parent dies.

The third case is the terminal: `modelmesh local up` without `--detach` holds the write end of a pipe, the
lifeline. When that process ends, the pipe closes and the supervisor stops in order.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING

from local import linux

if TYPE_CHECKING:
    from collections.abc import Callable

_GRACE_SECONDS = 3.0
"""Between SIGTERM and SIGKILL of left-over processes; a supervisor that stopped in order leaves none."""


def guard(supervise: Callable[[], int]) -> int:
    """Fork, run `supervise` in the child, and return its status after every descendant has ended.

    SIGTERM and SIGINT to the guardian are passed on to the supervisor. Call it before any thread or event
    loop.
    """
    linux.become_subreaper()
    guardian = os.getpid()
    child = os.fork()
    if child == 0:
        linux.die_with_parent(signal.SIGTERM, guardian)
        status = 70
        try:
            status = supervise()
        except BaseException:  # noqa: BLE001 -- the process ends here, so this is the last place to say why
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: os.kill(child, signal.SIGTERM))
    status = _wait_for(child)
    linux.end_descendants(_GRACE_SECONDS)
    return status


def _wait_for(child: int) -> int:
    """Reap orphans until the supervisor ends; return its exit status, 128 + N for signal N."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code

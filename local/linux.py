"""The three calls of Linux by which no process outlives its cluster.

A *child subreaper* becomes the parent of orphaned descendants, so they stay findable below it. A *parent
death signal* is sent to a process when the one that started it ends. Elsewhere than on Linux these do
nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def become_subreaper() -> None:
    """Make orphaned descendants of this process its children."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(signal_number: int, parent: int) -> None:
    """Ask for a signal when the parent ends; for the first moments of a child.

    Args:
        signal_number: the signal to get.
        parent: pid of the process that forked this one; if it has ended already, the signal comes now.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal_number)


def end_descendants(grace: float) -> list[int]:
    """End every process below this one: SIGTERM, after `grace` seconds SIGKILL; return their pids.

    Children are reaped. New ones that appear meanwhile are ended too.
    """
    ended: set[int] = set()
    deadline = time.monotonic() + grace
    while descendants := psutil.Process().children(recursive=True):
        late = time.monotonic() > deadline
        for process in descendants:
            if late or process.pid not in ended:
                ended.add(process.pid)
                with contextlib.suppress(psutil.Error):
                    process.send_signal(signal.SIGKILL if late else signal.SIGTERM)
        reap()
        time.sleep(0.02)
    return sorted(ended)


def reap() -> None:
    """Collect every child that has ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass

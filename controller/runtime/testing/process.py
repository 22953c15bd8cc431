"""One server process on a loopback port."""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from controller.runtime.testing.errors import TestEnvironmentError

if TYPE_CHECKING:
    import signal
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

START_SECONDS = 60.0
"""A start takes 1 to 5 s; a machine that is busy with other tests takes longer."""
STOP_SECONDS = 10.0
_LAST_WORDS = 2000
"""Characters of the log that an error quotes."""


def free_port() -> int:
    """Return a port that nobody listens on now, below those that outgoing connections are given."""
    while True:
        port = random.randrange(20_000, 30_000)  # noqa: S311 -- no secret
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


class Process:
    """A program that serves until it is stopped. It belongs to no event loop.

    Args:
        command: what to run.
        log: file that receives its output, appended.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._command, self._log = command, log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id; None while it does not run."""
        return self._process.pid if self._process else None

    async def start(self, ready: Callable[[], Awaitable[bool]]) -> None:
        """Start it and return when `ready` answers True.

        Raises:
            TestEnvironmentError: it ended, or did not become ready in time; with the end of its log.
        """
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603, ASYNC220 -- outlives this event loop
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        problem = f"was not ready after {START_SECONDS:.0f} s"
        with suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                while self._process.poll() is None:
                    if await ready():
                        return
                    await asyncio.sleep(0.05)
                problem = f"ended with status {self._process.returncode}"
        await self.stop()
        words = self._log.read_text(errors="replace")[-_LAST_WORDS:]
        raise TestEnvironmentError(f"{self._command[0]} {problem}; its log ({self._log}) ends:\n{words}")

    async def stop(self, *, kill: bool = False) -> None:
        """End it: by SIGTERM and, when that takes too long or `kill` is set, SIGKILL."""
        process, self._process = self._process, None
        if process is None:
            return
        if not kill:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, STOP_SECONDS)
        process.kill()
        process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, such as SIGSTOP."""
        if self._process is not None:
            self._process.send_signal(number)

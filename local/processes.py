"""One process of a container: started in a group of its own, and ended with everything it started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local import linux

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Command:
    """What to run.

    Attributes:
        arguments: the program and its arguments.
        environment: all of its environment variables.
        folder: its working directory.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: Path


class ContainerProcess:
    """A running process. Its output goes to a file."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, command: Command, log: Path) -> ContainerProcess:
        """Start a process.

        Raises:
            OSError: the program is missing or cannot be run.
        """
        supervisor = os.getpid()
        log.parent.mkdir(parents=True, exist_ok=True)
        command.folder.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=command.folder,
                env=dict(command.environment),
                start_new_session=True,
                preexec_fn=lambda: linux.die_with_parent(signal.SIGKILL, supervisor),
            )
        return cls(process)

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its group."""
        return self._process.pid

    async def wait(self) -> int:
        """Wait for the end of the process, end what is left of its group, and return the exit status.

        A process ended by signal N gives 128 + N, as container runtimes report it.
        """
        code = await self._process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        return code if code >= 0 else 128 - code

    async def stop(self, grace: float) -> int:
        """Send SIGTERM, after `grace` seconds SIGKILL to the whole group; return the exit status."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            return await asyncio.wait_for(self.wait(), grace)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            return await self.wait()

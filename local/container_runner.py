"""Keeps one container of a pod running: start, probe, restart with back-off, stop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import structlog

from local.backoff import RestartBackoff
from local.podstatus import ContainerState, terminated, waiting
from local.processes import ContainerProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from api.core import Container
    from controller.runtime.events import EventKind
    from local.probes import Prober
    from local.processes import Command

log = structlog.get_logger(__name__)

_KEPT_LOGS = 2
"""Log files kept of one container: of the present run and of the one before (`kubectl logs --previous`)."""


class Reporter(Protocol):
    """Where a container tells what happens to it."""

    def changed(self) -> None:
        """Take note that the container's state is another one."""
        ...

    def event(self, kind: EventKind, reason: str, message: str) -> None:
        """Record an event on the pod."""
        ...


class ContainerRunner:
    """One container.

    Args:
        container: its description.
        command: builds its command; called before each start.
        logs: folder of its log files, one a run.
        prober: asks its probes.
        reporter: hears of each change.
        restart: restart policy of the pod: Always, OnFailure or Never.
    """

    def __init__(
        self,
        container: Container,
        *,
        command: Callable[[Container], Command],
        logs: Path,
        prober: Prober,
        reporter: Reporter,
        restart: str = "Always",
    ) -> None:
        self.state = ContainerState(container.name, container.image)
        self._container = container
        self._command = command
        self._logs = logs
        self._prober = prober
        self._reporter = reporter
        self._restart = restart
        self._stopping = asyncio.Event()
        self._process: ContainerProcess | None = None

    async def run(self) -> None:
        """Run the container until `stop`, or for good where the restart policy says so."""
        backoff = RestartBackoff()
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._run_once()
            if self._stopping.is_set() or self._is_final(code):
                return
            await self._wait_before_restart(backoff.after_run(time.monotonic() - began))

    async def stop(self, grace: float) -> None:
        """Run the preStop hook, then end the process: SIGTERM, and SIGKILL after `grace` seconds in all.

        Hooks by `exec` are skipped: what runs here stops in order on SIGTERM.
        """
        deadline = time.monotonic() + grace
        self._stopping.set()
        lifecycle = self._container.lifecycle
        hook = lifecycle.pre_stop.http_get if lifecycle and lifecycle.pre_stop else None
        if hook is not None and self._process is not None:
            problem = await self._prober.get(hook, grace)
            log.debug("preStop hook", container=self.state.name, problem=problem)
        if self._process is not None:
            await self._process.stop(max(deadline - time.monotonic(), 0.1))

    async def _run_once(self) -> int:
        """Start the container and wait for its end; return its exit status."""
        started = _now()
        try:
            command = self._command(self._container)
            process = await ContainerProcess.start(command, self._next_log())
        except OSError as error:
            message = f"cannot start {self.state.name}: {error}"
            self._reporter.event("Warning", "Failed", message)
            self.state.last = terminated(128, started, _now(), 0)
            self.state.state = waiting("RunContainerError", message)
            self._reporter.changed()
            return 128
        self._process = process
        self.state.pid = process.pid
        self.state.state = {"running": {"startedAt": started}}
        self.state.ready = not self._prober.can_ask(self._container.readiness_probe)
        self._reporter.event(
            "Normal", "Started", f"Started container {self.state.name}, process {process.pid}"
        )
        self._reporter.changed()
        log.info(
            "started container", container=self.state.name, pid=process.pid, program=command.arguments[0]
        )
        if self._stopping.is_set():
            await process.stop(0.1)
        probes = self._start_probes(process)
        try:
            code = await process.wait()
        finally:
            for probe in probes:
                probe.cancel()
            await asyncio.gather(*probes, return_exceptions=True)
            self._process = None
            self.state.pid = 0
            self.state.ready = False
        log.info("container ended", container=self.state.name, pid=process.pid, status=code)
        self.state.state = terminated(code, started, _now(), process.pid)
        self._reporter.changed()
        return code

    def _start_probes(self, process: ContainerProcess) -> list[asyncio.Task[None]]:
        async def kill(problem: str) -> None:
            self._reporter.event("Warning", "Unhealthy", f"Liveness probe failed: {problem}")
            await process.stop(5)

        probes = []
        readiness, liveness = self._container.readiness_probe, self._container.liveness_probe
        if readiness is not None and self._prober.can_ask(readiness):
            probes.append(asyncio.create_task(self._prober.watch_readiness(readiness, self._set_ready)))
        if liveness is not None and self._prober.can_ask(liveness):
            probes.append(asyncio.create_task(self._prober.watch_liveness(liveness, kill)))
        return probes

    def _set_ready(self, problem: str) -> None:
        self.state.ready = not problem
        if problem:
            self._reporter.event("Warning", "Unhealthy", f"Readiness probe failed: {problem}")
        self._reporter.changed()

    def _is_final(self, code: int) -> bool:
        return self._restart == "Never" or (self._restart == "OnFailure" and code == 0)

    async def _wait_before_restart(self, seconds: float) -> None:
        if "terminated" in self.state.state:
            self.state.last = self.state.state
            if seconds:
                text = f"back-off {seconds:g}s restarting failed container={self.state.name}"
                self.state.state = waiting("CrashLoopBackOff", text)
                self._reporter.event(
                    "Warning", "BackOff", f"Back-off restarting failed container {self.state.name}"
                )
        self._reporter.changed()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        self.state.restarts += 1

    def _next_log(self) -> Path:
        self._logs.mkdir(parents=True, exist_ok=True)
        (self._logs / f"{self.state.restarts - _KEPT_LOGS}.log").unlink(missing_ok=True)
        return self._logs / f"{self.state.restarts}.log"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""HTTP and TCP probes and hooks of containers.

Probes by `exec` and `grpc` are not run here: a container with one of those counts as ready while it runs. On
one machine a request costs next to nothing, so readiness is asked for several times a second instead of after
`initialDelaySeconds` and every `periodSeconds`; liveness keeps the probe's own times.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp

from local.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from api.core import HTTPGetAction, Probe, TCPSocketAction

_READINESS_UNTIL_READY = 0.1
_READINESS_PERIOD = 1.0
"""Seconds between readiness probes, before and after the first success."""


class Prober:
    """Asks one container how it is.

    Args:
        session: the HTTP client.
        port_of: gives the real port for a port as written in the pod, by number or name.
    """

    def __init__(self, session: aiohttp.ClientSession, port_of: Callable[[int | str], int]) -> None:
        self._session = session
        self._port_of = port_of

    def can_ask(self, probe: Probe | None) -> bool:
        """Return whether this is a probe of a kind that exists here."""
        return probe is not None and (probe.http_get is not None or probe.tcp_socket is not None)

    async def ask(self, probe: Probe) -> str:
        """Run a probe once; return what is wrong, empty if nothing."""
        timeout = float(probe.timeout_seconds or 1)
        if probe.http_get is not None:
            return await self.get(probe.http_get, timeout)
        if probe.tcp_socket is not None:
            return await self._connect(probe.tcp_socket, timeout)
        return ""

    async def get(self, action: HTTPGetAction, timeout: float) -> str:  # noqa: ASYNC109 -- the client's own
        """Send a GET; return what is wrong: no answer in `timeout` seconds, or a status from 400 up."""
        scheme = (action.scheme or "http").lower()
        url = f"{scheme}://{LOOPBACK}:{self._port_of(action.port or 80)}/{(action.path or '').lstrip('/')}"
        limit = aiohttp.ClientTimeout(total=timeout)
        try:
            async with self._session.get(url, timeout=limit, ssl=False, allow_redirects=False) as answer:
                return f"{url} answered {answer.status}" if answer.status >= 400 else ""  # noqa: PLR2004
        except (aiohttp.ClientError, TimeoutError) as error:
            return f"{url}: {error or type(error).__name__}"

    async def watch_readiness(self, probe: Probe, report: Callable[[str], None]) -> None:
        """Probe for ever; report what is wrong (empty: ready) when that changes."""
        ready, failures = False, 0
        while True:
            problem = await self.ask(probe)
            failures = failures + 1 if problem else 0
            if not problem and not ready:
                ready = True
                report("")
            elif ready and failures >= (probe.failure_threshold or 3):
                ready = False
                report(problem)
            await asyncio.sleep(_READINESS_PERIOD if ready else _READINESS_UNTIL_READY)

    async def watch_liveness(self, probe: Probe, kill: Callable[[str], Awaitable[None]]) -> None:
        """Probe until the failure threshold is reached, then call `kill` with what is wrong."""
        await asyncio.sleep(probe.initial_delay_seconds or 0)
        failures = 0
        while failures < (probe.failure_threshold or 3):
            problem = await self.ask(probe)
            failures = failures + 1 if problem else 0
            if problem and failures >= (probe.failure_threshold or 3):
                await kill(problem)
                return
            await asyncio.sleep(probe.period_seconds or 10)

    async def _connect(self, action: TCPSocketAction, limit: float) -> str:
        port = self._port_of(action.port or 80)
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(LOOPBACK, port), limit)
        except (OSError, TimeoutError) as error:
            return f"{LOOPBACK}:{port}: {error or type(error).__name__}"
        writer.close()
        return ""

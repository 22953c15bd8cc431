"""Processes that contend for a Lease of the real API server; one is suspended, or finds the server slow.

Each writes all the time, objects that nobody else writes: nothing but the fence keeps the old leader from
writing on.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from api.core import CONFIG_MAP, LEASE
from controller.runtime.errors import NotFound
from controller.runtime.testing import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from controller.runtime import HttpClient
    from controller.runtime.testing import KubeApiServer

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[3]
DEADLINE_S = 40.0


class Contest:
    """The processes of a test, and what they have written."""

    def __init__(self, server: KubeApiServer, client: HttpClient, namespace: str) -> None:
        self._server, self._client, self.namespace = server, client, namespace
        self.processes: list[asyncio.subprocess.Process] = []

    async def start(self, identity: str, kubeconfig: Path | None = None) -> asyncio.subprocess.Process:
        await self._client.create(
            CONFIG_MAP, {"metadata": {"name": f"start-{identity}", "namespace": self.namespace}}
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).parent / "writer.py"),
            str(kubeconfig or self._server.kubeconfig),
            self.namespace,
            identity,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=asyncio.subprocess.PIPE,
        )
        self.processes.append(process)
        return process

    async def holder(self) -> str:
        try:
            lease = await self._client.get(LEASE, "writer", self.namespace)
        except NotFound:
            return ""
        return str(lease["spec"]["holderIdentity"])

    async def writes(self, identity: str) -> list[int]:
        """The versions at which a process has created objects, in order."""
        page = await self._client.list(CONFIG_MAP, self.namespace, label_selector=f"writer={identity}")
        return sorted(int(item["metadata"]["resourceVersion"]) for item in page.items)

    async def writing(self, identity: str) -> None:
        """Wait until it leads and writes, from now on."""
        before = len(await self.writes(identity))
        await eventually(lambda: self._leads(identity, before + 5))

    async def _leads(self, identity: str, writes: int) -> bool:
        return await self.holder() == identity and len(await self.writes(identity)) >= writes


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():  # type: ignore[misc]  # noqa: ASYNC110 -- beyond a process border
            await asyncio.sleep(0.02)


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str]:
    async with asyncio.timeout(DEADLINE_S):
        _, errors = await process.communicate()
    return process.returncode or 0, errors.decode()


@pytest.fixture
async def contest(
    kube_server: KubeApiServer, kube_client: HttpClient, kube_namespace: str
) -> AsyncIterator[Contest]:
    contest = Contest(kube_server, kube_client, kube_namespace)
    yield contest
    for process in contest.processes:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@asynccontextmanager
async def slow_line(server: KubeApiServer) -> AsyncIterator[tuple[Proxy, Path]]:
    async with Proxy(server.port) as proxy:
        yield proxy, server.kubeconfig_for(f"admin-{secrets.token_hex(4)}", "system:masters", url=proxy.url)


@pytest.mark.parametrize("nth", range(2))
async def test_a_leader_that_was_suspended_writes_nothing_more_and_ends(contest: Contest, nth: int) -> None:
    old = await contest.start("old")
    await contest.writing("old")
    await contest.start("new")
    await asyncio.sleep(0.1 * nth * secrets.randbelow(10))  # anywhere in what it does
    old.send_signal(signal.SIGSTOP)
    await contest.writing("new")
    taken = (await contest.writes("new"))[0]
    old.send_signal(signal.SIGCONT)
    code, log = await ended(old)
    assert (await contest.writes("old"))[-1] < taken
    assert code == 1
    assert "LeadershipLostError" in log
    await contest.writing("new")


async def test_a_slow_server_alone_does_not_unseat_the_leader(
    contest: Contest, kube_server: KubeApiServer
) -> None:
    async with slow_line(kube_server) as (proxy, kubeconfig):
        proxy.delay = 0.1
        await contest.start("old", kubeconfig)
        await contest.writing("old")
        await contest.start("new")
        before = len(await contest.writes("old"))
        await eventually(lambda: _at_least(contest, "old", before + 40))  # over more than a lease's time
        assert await contest.writes("new") == []


async def _at_least(contest: Contest, identity: str, writes: int) -> bool:
    return len(await contest.writes(identity)) >= writes


async def test_a_leader_whose_requests_are_held_up_gives_up_before_another_takes_over(
    contest: Contest, kube_server: KubeApiServer
) -> None:
    async with slow_line(kube_server) as (proxy, kubeconfig):
        old = await contest.start("old", kubeconfig)
        await contest.writing("old")
        await contest.start("new")
        proxy.hold()
        code, log = await ended(old)
        assert code == 1
        assert "LeadershipLostError" in log
        proxy.release()
        await contest.writing("new")
        taken = (await contest.writes("new"))[0]
        assert (await contest.writes("old"))[-1] < taken


async def test_a_leader_that_died_is_followed_after_its_lease(contest: Contest) -> None:
    old = await contest.start("old")
    await contest.writing("old")
    await contest.start("new")
    old.kill()
    await contest.writing("new")
    assert (await contest.writes("old"))[-1] < (await contest.writes("new"))[0]

"""The controller as a process, against an API server over HTTP."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.core import LEASE
from controller import probes
from local.apiserver.kubeconfig import write_kubeconfig
from local.apiserver.server import LocalApiServer

NAMESPACE = "modelmesh-serving"


class Process:
    """A running controller."""

    def __init__(self, process: asyncio.subprocess.Process, health: str, metrics: str) -> None:
        self._process = process
        self.health, self.metrics = health, metrics

    async def status(self, url: str) -> int:
        """Returns the HTTP status; 0 where nobody listens."""
        async with httpx.AsyncClient() as client:
            try:
                return (await client.get(url)).status_code
            except httpx.TransportError:
                return 0

    async def end(self) -> tuple[int, str]:
        """Waits for the process; returns its exit status and what it wrote."""
        _, errors = await asyncio.wait_for(self._process.communicate(), 20)
        return self._process.returncode or 0, errors.decode()

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    @property
    def runs(self) -> bool:
        return self._process.returncode is None

    def kill(self) -> None:
        self._process.kill()


@pytest.fixture
async def start(
    idle_world: Any,
    tmp_path: Path,
    unused_tcp_port_factory: Any,
) -> AsyncIterator[Any]:
    server = LocalApiServer(idle_world.client.core, pod_logs=None)  # type: ignore[arg-type]
    await server.start()
    kubeconfig = tmp_path / "kubeconfig"
    write_kubeconfig(kubeconfig, server.url, NAMESPACE)
    processes = []

    async def run(*flags: str, **variables: str) -> Process:
        health, metrics = (f"127.0.0.1:{unused_tcp_port_factory()}" for _ in range(2))
        environment = os.environ | {
            "KUBECONFIG": str(kubeconfig),
            "NAMESPACE": NAMESPACE,
            "NAMESPACE_SCOPE": "true",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "modelmesh",
            "controller",
            f"--health-probe-bind-address={health}",
            f"--metrics-addr={metrics}",
            *flags,
            env=environment | variables,
            stderr=asyncio.subprocess.PIPE,
        )
        processes.append(Process(process, f"http://{health}", f"http://{metrics}"))
        return processes[-1]

    yield run
    for process in processes:
        if process.runs:
            process.kill()
            await process.end()
    await server.stop()


@pytest.mark.e2e
async def test_it_serves_until_it_is_told_to_stop(start: Any, idle_world: Any) -> None:
    process = await start("--enable-leader-election")

    async def is_ready() -> bool:
        return await process.status(f"{process.health}/readyz") == 200

    await idle_world.eventually(is_ready)
    assert await process.status(f"{process.health}/healthz") == 200
    await idle_world.create_runtime()
    await idle_world.create_isvc()
    await idle_world.ready(status="False", message="Waiting for runtime Pod")
    await idle_world.until("Service", "modelmesh-serving", lambda obj: obj is not None)
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{process.metrics}/metrics")).text
    assert 'controller_runtime_reconcile_total{controller="inferenceservice"' in text

    process.terminate()
    code, log = await process.end()
    assert code == 0
    assert "released the lease" in log
    assert "Traceback" not in log
    lease = await idle_world.client.get(LEASE, "modelmesh-controller-leader-lock", NAMESPACE)
    assert lease["spec"]["holderIdentity"] == ""


@pytest.mark.e2e
async def test_of_two_with_leader_election_one_acts_and_both_are_ready(start: Any, idle_world: Any) -> None:
    flags = ("--enable-leader-election", "--leader-elect-retry-period-sec=100ms")
    first, second = await start(*flags), await start(*flags)

    async def are_ready() -> bool:
        return all([await process.status(f"{process.health}/readyz") == 200 for process in (first, second)])

    await idle_world.eventually(are_ready)
    await idle_world.until("Service", "modelmesh-serving", lambda obj: obj is not None)
    leading = [await leads(process) for process in (first, second)]
    assert sorted(leading) == [False, True]
    leader, other = (first, second) if leading[0] else (second, first)
    leader.terminate()
    assert (await leader.end())[0] == 0
    await idle_world.eventually(lambda: leads(other))


async def leads(process: Process) -> bool:
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{process.metrics}/metrics")).text
    return 'leader_election_master_status{name="modelmesh-controller-leader-lock"} 1.0' in text


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("flag", "problem"),
    [
        ("--leader-elect-type=life", "use lease"),
        ("--leader-elect-lease-duration-sec=5s", r"lease duration (5.0 s) must be longer"),
    ],
)
async def test_a_lock_that_cannot_work_ends_it(start: Any, flag: str, problem: str) -> None:
    code, log = await (await start("--enable-leader-election", flag)).end()
    assert code == 1
    assert problem in log


@pytest.mark.e2e
async def test_a_bad_configuration_at_the_start_is_told_and_waited_out(start: Any, idle_world: Any) -> None:
    await idle_world.configure(podsPerRuntime="many")
    process = await start()
    events = await idle_world.events("InvalidConfiguration", kind="ConfigMap")
    assert "podsPerRuntime" in events[0]["message"]
    assert await process.status(f"{process.health}/healthz") == 200
    assert await process.status(f"{process.health}/readyz") == 503
    assert await idle_world.get("Service", "modelmesh-serving") is None

    await idle_world.configure(podsPerRuntime=1)
    await idle_world.until("Service", "modelmesh-serving", lambda obj: obj is not None)
    process.terminate()
    assert (await process.end())[0] == 0


@pytest.mark.e2e
async def test_it_stops_while_it_waits_for_a_better_configuration(start: Any, idle_world: Any) -> None:
    await idle_world.configure(podsPerRuntime="many")
    process = await start()
    await idle_world.events("InvalidConfiguration", kind="ConfigMap")
    process.terminate()
    code, log = await process.end()
    assert code == 0
    assert "Traceback" not in log


@pytest.mark.e2e
async def test_a_taken_port_ends_it_and_is_named(start: Any) -> None:
    first = await start()
    second = await start(f"--metrics-addr={first.metrics.removeprefix('http://')}")
    code, log = await second.end() if await _one_ends(first, second) is second else await first.end()
    assert code == 1
    assert "metrics-addr" in log
    assert "cannot listen on 127.0.0.1" in log


async def _one_ends(*processes: Process) -> Process:
    while all(process.runs for process in processes):  # noqa: ASYNC110 -- beyond a process border
        await asyncio.sleep(0.05)
    return next(process for process in processes if not process.runs)


@pytest.mark.e2e
async def test_without_an_api_server_it_says_so(start: Any, tmp_path: Path, unused_tcp_port: int) -> None:
    kubeconfig = tmp_path / "other"
    write_kubeconfig(kubeconfig, f"http://127.0.0.1:{unused_tcp_port}", NAMESPACE)
    code, log = await (await start(KUBECONFIG=str(kubeconfig))).end()
    assert code == 1
    assert str(unused_tcp_port) in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("address", "expected"),
    [(":8080", ("0.0.0.0", 8080)), ("127.0.0.1:1", ("127.0.0.1", 1)), ("[::1]:2", ("::1", 2))],
)
def test_addresses(address: str, expected: tuple[str, int]) -> None:
    assert probes.split_address(address, "metrics-addr") == expected


@pytest.mark.parametrize("address", ["", "8080", "host:", "host:http"])
def test_malformed_addresses_name_the_flag(address: str) -> None:
    with pytest.raises(probes.AddressError, match="--metrics-addr"):
        probes.split_address(address, "metrics-addr")

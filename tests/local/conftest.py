"""A cluster without Modelmesh in it: API server core, reconcilers, and programs that are small scripts."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
import pytest

from api.core import DEPLOYMENT, POD, Pod
from controller.runtime.apiserver import Core, MemoryClient
from controller.runtime.errors import NotFound
from local.control_plane import control_plane
from local.home import Home
from local.node import Node, logs_of
from local.ports import PortAllocator
from local.processes import Command, ContainerProcess
from local.profiles import Profile, Profiles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from api.meta import JSON

NAMESPACE = "test"

SERVER = """
import http.server, os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ok = self.path != '/ready' or os.path.exists('ready')
        self.send_response(200 if ok else 503)
        self.end_headers()
        self.wfile.write(os.environ.get('GREETING', '').encode())
    def log_message(self, *_): pass
server = http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler)
print('listening on', os.environ['PORT'], flush=True)
server.serve_forever()
"""
"""Answers on $PORT; /ready is 200 once a file named `ready` is in its working folder."""

SLEEPER = "import time; print('started', flush=True); time.sleep(600)"
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('up', flush=True)
time.sleep(600)
"""
CRASHER = "print('about to fail', flush=True); raise SystemExit(3)"
PARENT = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(600)\n"
)
"""Starts a process of its own and prints its id."""


def fake_profiles() -> Profiles:
    scripts = {
        "server": SERVER,
        "sleeper": SLEEPER,
        "stubborn": STUBBORN,
        "crasher": CRASHER,
        "parent": PARENT,
    }
    return Profiles(
        Profile(
            images=(f"fake/{name}",),
            commands={"": ("{interpreter}", "-c", script)},
            defaults={"PORT": "8080"},
            ports=frozenset({"PORT"}),
        )
        for name, script in scripts.items()
    )


async def until(condition: Callable[[], Awaitable[object]], what: str, seconds: float = 15) -> None:
    """Wait until `condition` is truthy; fail with `what` when that takes too long."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        await asyncio.sleep(0.02)


async def start(script: str, folder: Path) -> ContainerProcess:
    """Start a script as a container would be."""
    command = Command((sys.executable, "-c", script), {"PATH": "/usr/bin:/bin"}, folder)
    return await ContainerProcess.start(command, folder / "log")


@dataclass
class FakeCluster:
    """What the tests look at."""

    client: MemoryClient
    home: Home

    async def create_pod(self, name: str, *containers: JSON, **spec: object) -> None:
        """Create a pod; each container gives at least its image."""
        named = [{"name": f"c{index}", **container} for index, container in enumerate(containers)]
        pod = {
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": "fake"}},
            "spec": {"containers": named, **spec},
        }
        await self.client.create(POD, {"apiVersion": "v1", "kind": "Pod", **pod})

    async def create_deployment(self, name: str, replicas: int, image: str, **strategy: object) -> None:
        """Create a Deployment of one-container pods."""
        labels = {"app": name}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c0", "image": image}]}}
        spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
        if strategy:
            spec["strategy"] = {"type": "RollingUpdate", "rollingUpdate": strategy}
        deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec}
        await self.client.create(
            DEPLOYMENT, deployment | {"metadata": {"name": name, "namespace": NAMESPACE}}
        )

    async def pod(self, name: str) -> Pod | None:
        """Return a pod, None when it is not there."""
        try:
            return Pod.parse(await self.client.get(POD, name, NAMESPACE))
        except NotFound:
            return None

    async def pods(self) -> list[Pod]:
        """Return all pods that are not being deleted."""
        page = await self.client.list(POD, NAMESPACE)
        return [pod for pod in map(Pod.parse, page.items) if not pod.metadata.deletion_timestamp]

    async def container(self, name: str, index: int = 0) -> JSON:
        """Return the status of a pod's container, empty while there is none."""
        pod = await self.pod(name)
        statuses = pod.status.container_statuses if pod else []
        return statuses[index].dump() if len(statuses) > index else {}

    async def pid(self, name: str, index: int = 0) -> int:
        """Return the process of a running container, else 0."""
        status = await self.container(name, index)
        return int(str(status.get("containerID", "process://0")).removeprefix("process://"))

    async def started(self, name: str, index: int = 0) -> int:
        """Wait until a container runs and return its process."""

        async def running() -> int:
            return await self.pid(name, index)

        await until(running, f"container {index} of {name} to run")
        return await running()

    def log(self, name: str, run: int = 0, container: str = "c0") -> str:
        """Return what one run of a container printed."""
        file = logs_of(self.home, NAMESPACE, name, container) / f"{run}.log"
        return file.read_text() if file.exists() else ""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home", tmp_path / "cache")


@pytest.fixture
async def cluster(home: Home) -> AsyncIterator[FakeCluster]:
    core = Core(namespaces=(NAMESPACE,))
    client = MemoryClient(core)
    async with aiohttp.ClientSession() as session:
        node = Node(
            home=home,
            profiles=fake_profiles(),
            ports=PortAllocator(),
            names={"interpreter": sys.executable},
            base={"PATH": "/usr/bin:/bin"},
            session=session,
        )
        manager, runner = control_plane(client, node, owners=())
        running = asyncio.create_task(manager.run())
        try:
            yield FakeCluster(client, home)
        finally:
            manager.stop()
            await runner.close(2)
            await running
            core.close()

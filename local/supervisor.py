"""One local cluster: an API server, slices of kube-controller-manager and kubelet, and pods for the rest.

etcd, the S3 server and our controller are pods like any other, so one mechanism starts, watches, restarts and
ends everything.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import aiohttp
import structlog

from api.core import POD, Pod
from controller.runtime.apiserver import Core, MemoryClient
from local import environments, manifests, profiles, samples, tools
from local.admission import Admission
from local.apiserver import LocalApiServer, write_kubeconfig
from local.control_plane import control_plane
from local.errors import LocalError, StartFailedError
from local.home import NAMESPACE, ClusterState, Home, Settings
from local.node import Node, base_environment, node_names
from local.podlogs import LogFiles
from local.ports import LOOPBACK, PortAllocator, require_free
from local.progress import JsonProgress, step
from local.workloads import is_ready

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from api.meta import JSON
    from api.resource import Resource
    from controller.runtime.manager import Manager
    from local.pods import PodRunner

log = structlog.get_logger(__name__)

_START_SECONDS = 60.0
"""Until a dependency or the controller must be ready; they need about two."""
_STOP_SECONDS = 8.0
"""What pods get to stop when the whole cluster goes; there is nobody to drain to."""
_STOP_DEPENDENCIES_SECONDS = 2.0
"""What etcd, the S3 server and the controller get; nothing of theirs outlives the cluster."""


class Supervisor:
    """Runs one cluster until it is told to stop."""

    def __init__(self, home: Home, settings: Settings, progress: JsonProgress) -> None:
        self._home = home
        self._settings = settings
        self._progress = progress
        self._ports = PortAllocator()
        self._core = Core(namespaces=(NAMESPACE,), first_version=int(time.time() * 1000))
        self._client = MemoryClient(self._core, field_manager="local")
        self._stopping = asyncio.Event()
        self._tools: dict[str, Path] = {}

    def stop(self) -> None:
        """Ask for the end."""
        self._stopping.set()

    async def run(self) -> None:
        """Start everything, report that it is ready, wait for `stop`, and end everything.

        Raises:
            LocalError: the start failed.
        """
        for folder in (self._home.pods, self._home.logs):
            shutil.rmtree(folder, ignore_errors=True)
        self._require_ports()
        await self._prepare()
        async with AsyncExitStack() as stack:
            await self._start_api_server(stack)
            session = await stack.enter_async_context(aiohttp.ClientSession())
            manager, runner = control_plane(self._client, self._node(session))
            running = asyncio.create_task(manager.run())
            stack.push_async_callback(self._stop, manager, runner, running)
            main = asyncio.create_task(self._start_objects())
            stop = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({main, stop, running}, return_when=asyncio.FIRST_COMPLETED)
            if main.done():
                main.result()
                await asyncio.wait({stop, running}, return_when=asyncio.FIRST_COMPLETED)
            for task in (main, stop):
                task.cancel()
            await asyncio.gather(main, stop, return_exceptions=True)
            if running.done():
                running.result()

    def _require_ports(self) -> None:
        settings = self._settings
        require_free(settings.grpc_port, "inference by gRPC", "--grpc-port")
        require_free(settings.rest_port, "inference by REST", "--rest-port")
        require_free(settings.api_port, "the Kubernetes API", "--api-port")

    async def _prepare(self) -> None:
        """Get tools and environments, all at the same time."""
        home = self._home

        async def tool(wanted: tools.Tool) -> None:
            found = await asyncio.to_thread(tools.locate, wanted, home.tools)
            if found is None:
                with step(self._progress, f"Installing {wanted.name}"):
                    found = await asyncio.to_thread(tools.ensure, wanted, home.tools)
            self._tools[wanted.name] = found

        async def server(name: str) -> None:
            if not environments.is_built(environments.locate(name, home.environments)):
                with step(
                    self._progress, f"Building the Python environment of {name} (minutes, the first time)"
                ):
                    await asyncio.to_thread(environments.ensure, name, home.environments)

        wanted = (tools.ETCD, tools.WEED, tools.KUBECTL)
        # Built before the start, so that no model waits for them; MLServer's trains the samples too.
        servers = (
            {"mlserver", *self._settings.runtimes} if self._settings.samples else self._settings.runtimes
        )
        await asyncio.gather(*map(tool, wanted), *map(server, sorted(servers)))

    async def _start_api_server(self, stack: AsyncExitStack) -> None:
        with step(self._progress, "Starting the API server"):
            for definition in manifests.definitions():
                self._core.register_definition(definition)
            self._core.add_validator(Admission(manifests.policies()))
            server = LocalApiServer(
                self._core,
                host=LOOPBACK,
                port=self._settings.api_port,
                pod_logs=LogFiles(self._home),
            )
            await server.start()
            stack.push_async_callback(server.stop)
            write_kubeconfig(self._home.kubeconfig, server.url, NAMESPACE)

    def _node(self, session: aiohttp.ClientSession) -> Node:
        return Node(
            home=self._home,
            profiles=profiles.every(self._home.root, self._settings.profiles),
            ports=self._ports,
            names=node_names(
                self._home,
                grpc_port=self._settings.grpc_port,
                rest_port=self._settings.rest_port,
                tools=self._tools,
            ),
            base=base_environment(os.environ),
            session=session,
        )

    async def _start_objects(self) -> None:
        """Make the cluster's objects and wait until it can be used."""
        etcd_port, s3_port = self._ports.allocate(), self._ports.allocate()
        endpoint = f"http://{LOOPBACK}:{s3_port}"
        for obj in manifests.objects(etcd_port=etcd_port, s3_port=s3_port):
            await self._client.create(resource_of(self._core, obj), obj)
        for runtime in manifests.runtimes(self._settings.runtimes):
            await self._client.create(resource_of(self._core, runtime), runtime)
        dependencies = [self._ready("etcd", "etcd"), self._ready("minio", "the S3 server")]
        await asyncio.gather(*dependencies, self._ready("modelmesh-controller-", "the controller"))
        if self._settings.samples:
            await self._store_samples(endpoint)
        for manifest in self._settings.manifests:
            with step(self._progress, f"Applying {manifest}"):
                await self._apply(manifest)
        self._home.write_state(ClusterState(os.getppid(), self._settings, ready=True, s3_endpoint=endpoint))
        log.info("cluster is ready", api_port=self._settings.api_port, s3=endpoint)
        self._progress.ready()

    async def _ready(self, prefix: str, what: str) -> None:
        """Wait until a pod whose name starts with `prefix` is ready."""
        with step(self._progress, f"Starting {what}"):
            deadline = time.monotonic() + _START_SECONDS
            while True:
                page = await self._client.list(POD, NAMESPACE)
                pods = [pod for pod in map(Pod.parse, page.items) if pod.name.startswith(prefix)]
                if any(is_ready(pod) for pod in pods):
                    return
                if time.monotonic() > deadline:
                    raise StartFailedError(self._why_not_ready(pods, what))
                await asyncio.sleep(0.05)

    def _why_not_ready(self, pods: list[Pod], what: str) -> str:
        text = f"{what} was not ready within {_START_SECONDS:.0f} s"
        for pod in pods:
            states = [str(status.state) for status in pod.status.container_statuses]
            text += (
                f"; pod {pod.name}: {', '.join(states)}; its logs: {self._home.logs / NAMESPACE / pod.name}"
            )
        return text

    async def _store_samples(self, endpoint: str) -> None:
        environment = environments.locate("mlserver", self._home.environments)
        if not samples.locate(self._home.samples, environment).is_dir():
            with step(self._progress, "Training the sample models"):
                await asyncio.to_thread(samples.ensure, self._home.samples, environment)
        with step(self._progress, "Storing the sample models"):
            models = samples.locate(self._home.samples, environment)
            await asyncio.to_thread(samples.upload, models, endpoint)

    async def _apply(self, manifest: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *(str(self._tools["kubectl"]), "apply", "--filename", manifest),
            env={**os.environ, "KUBECONFIG": str(self._home.kubeconfig)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        if process.returncode:
            raise StartFailedError(f"kubectl apply -f {manifest} failed: {output.decode().strip()}")

    async def _stop(self, manager: Manager, runner: PodRunner, running: asyncio.Task[None]) -> None:
        """End the reconcilers, then the pods: what serves first, what it leans on last."""
        manager.stop()
        await asyncio.gather(running, return_exceptions=True)
        await runner.close(_STOP_SECONDS, keep=lambda pod: "local.modelmesh/part" in pod.metadata.labels)
        await runner.close(_STOP_DEPENDENCIES_SECONDS)


def resource_of(core: Core, obj: JSON) -> Resource:
    """Return the resource of an object by its apiVersion and kind.

    Raises:
        LocalError: the API server has no such kind.
    """
    group, _, version = obj["apiVersion"].rpartition("/")
    for kind in core.kinds:
        resource = kind.resource
        if (resource.group, resource.version, resource.kind) == (group, version, obj["kind"]):
            return resource
    raise LocalError(f"the API server has no {obj['kind']} of {obj['apiVersion']}")


def supervise(home: Home, settings: Settings, *, lifeline: bool) -> int:
    """Run a cluster in this process until a signal or the end of the lifeline; return the exit status.

    Progress goes to standard output as JSON lines (`progress.JsonProgress`), logs to standard error.

    Args:
        home: its folder, whose lock this process has.
        settings: its ports and manifests.
        lifeline: whether standard input is a pipe whose end means that the starter is gone.
    """
    progress = JsonProgress()
    try:
        asyncio.run(_supervise(home, settings, progress, lifeline=lifeline))
    except LocalError as error:
        progress.failed(str(error))
        return 1
    except Exception as error:
        log.exception("the supervisor failed")
        progress.failed(f"the supervisor failed: {error!r}; see {home.supervisor_log}")
        return 1
    return 0


async def _supervise(home: Home, settings: Settings, progress: JsonProgress, *, lifeline: bool) -> None:
    supervisor = Supervisor(home, settings, progress)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, supervisor.stop)
    if lifeline:
        _watch_lifeline(loop, supervisor.stop)
    await supervisor.run()


def _watch_lifeline(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """Call `stop` when standard input ends."""

    def readable() -> None:
        if not os.read(sys.stdin.fileno(), 1024):
            loop.remove_reader(sys.stdin.fileno())
            stop()

    loop.add_reader(sys.stdin.fileno(), readable)

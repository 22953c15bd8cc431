"""One pod of this machine: its ports and volumes, its containers, its status."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import structlog

from api.core import CONFIG_MAP, POD, SECRET, ConfigMap, Pod, Secret, SecretVolumeSource
from controller.deployment.context import SOCKET
from controller.runtime.errors import ClientError, NotFound
from local import containers, environments, podstatus, volumes
from local.container_runner import ContainerRunner
from local.errors import EnvironmentFailedError, PodSpecError
from local.node import NODE_NAME, logs_of
from local.ports import LOOPBACK
from local.probes import Prober

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from api.core import ConfigMapVolumeSource, Container
    from api.meta import JSON
    from controller.runtime.apiserver import MemoryClient
    from controller.runtime.events import EventKind, EventRecorder
    from local.node import Node
    from local.processes import Command
    from local.profiles import Profile

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 2.0
"""Until a pod that cannot start yet, for want of a Secret say, is looked at again without a change."""
_RETRY_BUILD_SECONDS = 30.0
"""The same after a model server's environment could not be built, which downloads."""


@dataclass(slots=True)
class _Plan:
    """What a worker found out about its pod before it starts the containers."""

    programs: dict[str, tuple[Profile, tuple[str, ...]]] = field(default_factory=dict)
    environments: dict[str, str] = field(default_factory=dict)
    config: dict[tuple[str, str], Mapping[str, bytes]] = field(default_factory=dict)


class PodWorker:
    """One pod, from its first sight to the removal of its processes. It starts at once."""

    def __init__(self, pod: Pod, client: MemoryClient, node: Node, recorder: EventRecorder) -> None:
        self.pod = pod
        self._client = client
        self._node = node
        self._recorder = recorder
        self._folder = node.home.pods / pod.metadata.uid[:8]
        self._started = _now()
        self._ports: dict[int, int] = {}
        self._runners: list[ContainerRunner] = []
        self._states = [podstatus.ContainerState(item.name, item.image) for item in pod.spec.containers]
        self._conditions: list[JSON] = []
        self._events: list[tuple[EventKind, str, str]] = []
        self._changed = asyncio.Event()
        self._refresh = asyncio.Event()
        self._stopping = asyncio.Event()
        self._grace = 0.0
        self._keep_object = False
        self._task = asyncio.create_task(self._run(), name=f"pod {pod.name}")

    def refresh(self) -> None:
        """Look at the pod's Secrets and ConfigMaps again."""
        self._refresh.set()

    def stop(self, grace: float, *, keep_object: bool = False) -> None:
        """End the pod within `grace` seconds; then let its object go, unless `keep_object`."""
        self._grace = grace
        self._keep_object = keep_object
        self._stopping.set()

    async def finished(self) -> None:
        """Wait until the processes are gone."""
        await self._task

    def changed(self) -> None:
        """Write the status soon."""
        self._changed.set()

    def event(self, kind: EventKind, reason: str, message: str) -> None:
        """Record an event on the pod, soon."""
        self._events.append((kind, reason, message))
        self._changed.set()

    async def _run(self) -> None:
        publisher = asyncio.create_task(self._publish_changes())
        refresher: asyncio.Task[None] | None = None
        try:
            plan = await self._prepare_until_possible()
            if plan is not None:
                self._runners = [self._runner(container, plan) for container in self.pod.spec.containers]
                self._states = [runner.state for runner in self._runners]
                refresher = asyncio.create_task(self._refresh_volumes())
                running = [asyncio.create_task(runner.run()) for runner in self._runners]
                await self._stopping.wait()
                await asyncio.gather(*(runner.stop(self._grace) for runner in self._runners))
                await asyncio.gather(*running)
        finally:
            for task in filter(None, (publisher, refresher)):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            for port in self._ports.values():
                self._node.ports.release(port)
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
        await self._publish()
        if not self._keep_object:
            await release_pod(self._client, self.pod)

    async def _prepare_until_possible(self) -> _Plan | None:
        """Prepare the pod, again and again while something is missing; None when it is to stop instead."""
        said = ""
        while not self._stopping.is_set():
            retry = _RETRY_SECONDS
            try:
                return await self._prepare()
            except (PodSpecError, EnvironmentFailedError, ClientError, OSError) as error:
                reason = getattr(error, "reason", "") or "FailedToPrepare"
                for state in self._states:
                    state.state = podstatus.waiting(reason, str(error))
                self._changed.set()
                if str(error) != said:
                    said = str(error)
                    self.event("Warning", reason, said)
                    log.warning("pod cannot start", pod=self.pod.name, reason=reason, problem=said)
                if isinstance(error, EnvironmentFailedError):
                    retry = _RETRY_BUILD_SECONDS
            self._refresh.clear()
            await self._wait_for_news(retry)
        return None

    async def _wait_for_news(self, seconds: float) -> None:
        waits = [asyncio.create_task(event.wait()) for event in (self._stopping, self._refresh)]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _prepare(self) -> _Plan:
        """Find programs, ports, environments, volumes and variables.

        Raises:
            PodSpecError: the pod asks for something that is missing or does not exist here.
            EnvironmentFailedError: a model server's environment cannot be built.
        """
        plan = _Plan()
        if self.pod.spec.init_containers:
            raise PodSpecError("init containers do not exist in local mode")
        for container in self.pod.spec.containers:
            command = container.command[0] if container.command else ""
            profile, program = self._node.profiles.find(container.image, command)
            plan.programs[container.name] = profile, program
            for written, fixed in containers.written_ports(container, profile):
                if fixed:
                    self._ports[written] = fixed
                elif written not in self._ports:
                    self._ports[written] = self._node.ports.allocate()
        await self._claim()
        for profile, _ in plan.programs.values():
            if profile.python and profile.python not in plan.environments:
                folder = self._node.home.environments
                path = await asyncio.to_thread(environments.ensure, profile.python, folder)
                plan.environments[profile.python] = str(path)
        for kind, name in references(self.pod):
            plan.config[kind, name] = await self._read(kind, name)
        await self._write_volumes(plan.config)
        for container in self.pod.spec.containers:
            self._command(plan, container)
        return plan

    async def _claim(self) -> None:
        """Put the port map and the node's name on the pod's object."""
        ports = json.dumps({str(written): real for written, real in sorted(self._ports.items())})
        metadata = {"annotations": {containers.PORTS_ANNOTATION: ports}}
        patch = {"metadata": metadata, "spec": {"nodeName": NODE_NAME}}
        with contextlib.suppress(NotFound):
            changed = await self._client.patch(POD, self.pod.name, self.pod.namespace, patch)
            self.pod = Pod.parse(changed)
        self.pod.status.pod_ip = self.pod.status.host_ip = LOOPBACK

    def _runner(self, container: Container, plan: _Plan) -> ContainerRunner:
        return ContainerRunner(
            container,
            command=partial(self._command, plan),
            logs=logs_of(self._node.home, self.pod.namespace, self.pod.name, container.name),
            prober=Prober(self._node.session, self._real_port),
            reporter=self,
            restart=self.pod.spec.restart_policy or "Always",
        )

    def _command(self, plan: _Plan, container: Container) -> Command:
        profile, program = plan.programs[container.name]
        facts = containers.Facts(
            pod=self.pod,
            ports=self._ports,
            volumes={volume.name: self._volume_folder(volume.name) for volume in self.pod.spec.volumes},
            names={
                **self._node.names,
                "folder": profile.folder,
                "python": plan.environments.get(profile.python, ""),
            },
            base=self._node.base,
            config=plan.config,
        )
        return containers.translate(
            container, profile, program, facts, self._folder / "work" / container.name
        )

    def _real_port(self, port: int | str) -> int:
        number = containers.port_number(self.pod.spec.containers, port)
        return self._ports.get(number, number)

    def _volume_folder(self, name: str) -> Path:
        return self._folder / "volumes" / name

    async def _refresh_volumes(self) -> None:
        """Rewrite Secret and ConfigMap volumes whenever one of their sources changed."""
        while True:
            await self._refresh.wait()
            self._refresh.clear()
            try:
                config = {key: await self._read(*key) for key in references(self.pod)}
                await self._write_volumes(config)
            except PodSpecError as error:
                self.event("Warning", "FailedMount", str(error))

    async def _read(self, kind: str, name: str) -> Mapping[str, bytes]:
        """Return the entries of a Secret or ConfigMap; none if it is missing."""
        with contextlib.suppress(NotFound):
            if kind == "Secret":
                return volumes.files_of(
                    Secret.parse(await self._client.get(SECRET, name, self.pod.namespace))
                )
            return volumes.files_of(
                ConfigMap.parse(await self._client.get(CONFIG_MAP, name, self.pod.namespace))
            )
        return {}

    async def _write_volumes(self, config: Mapping[tuple[str, str], Mapping[str, bytes]]) -> None:
        for volume in self.pod.spec.volumes:
            folder = self._volume_folder(volume.name)
            if volume.empty_dir is not None:
                if volume.name == SOCKET:
                    volumes.require_short(folder)
                folder.mkdir(parents=True, exist_ok=True)
                continue
            source = volume.secret or volume.config_map
            if source is None:
                raise volumes.unsupported(volume)
            key = _source_of(source)
            origin = f"{key[0]} {key[1]!r} of volume {volume.name!r}"
            if not config.get(key) and not source.optional:
                raise PodSpecError(f"{origin} is missing or empty in namespace {self.pod.namespace}")
            files = volumes.select(config.get(key, {}), source.items, origin)
            await asyncio.to_thread(volumes.write_projected, folder, files)

    async def _publish_changes(self) -> None:
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._publish()

    async def _publish(self) -> None:
        """Write events and status; a pod that is gone needs none."""
        events, self._events = self._events, []
        for event in events:
            await self._recorder.event(self.pod, *event)
        status = podstatus.pod_status(
            self._states,
            started=self._started,
            now=_now(),
            previous=self._conditions,
        )
        self._conditions = status["conditions"]
        name, namespace = self.pod.name, self.pod.namespace
        try:
            await self._client.patch(POD, name, namespace, {"status": status}, subresource="status")
        except NotFound:
            pass
        except ClientError:
            log.exception("cannot write a pod's status", pod=name)


def references(pod: Pod) -> set[tuple[str, str]]:
    """Return the Secrets and ConfigMaps that a pod's volumes and variables name, as (kind, name)."""
    found = set()
    for volume in pod.spec.volumes:
        if source := volume.secret or volume.config_map:
            found.add(_source_of(source))
    for container in pod.spec.containers:
        for origin in (variable.value_from for variable in container.env if variable.value_from is not None):
            if origin.secret_key_ref is not None:
                found.add(("Secret", origin.secret_key_ref.name))
            if origin.config_map_key_ref is not None:
                found.add(("ConfigMap", origin.config_map_key_ref.name))
    return found


async def release_pod(client: MemoryClient, pod: Pod) -> None:
    """Let the object of a deleted pod go, now that its processes are gone."""
    with contextlib.suppress(NotFound):
        live = Pod.parse(await client.get(POD, pod.name, pod.namespace))
        if live.metadata.uid == pod.metadata.uid and live.metadata.deletion_timestamp:
            await client.delete(POD, pod.name, pod.namespace, grace_seconds=0)


def _source_of(source: SecretVolumeSource | ConfigMapVolumeSource) -> tuple[str, str]:
    if isinstance(source, SecretVolumeSource):
        return "Secret", source.secret_name
    return "ConfigMap", source.name


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""The controller's process: `modelmesh controller`."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog

from api.core import NAMESPACE, Secret
from api.monitoring import ServiceMonitor
from api.v1alpha1 import ClusterServingRuntime
from api.v1beta1 import InferenceService
from controller import configured, probes, webhook
from controller.assembly import COMPONENT, Assembly, Sources
from controller.environment import parse_flags, read_environment
from controller.errors import ControllerError
from controller.runtime.errors import ClientError, Forbidden, NotFound
from controller.runtime.events import EventRecorder
from controller.runtime.http_client import load_client
from controller.runtime.leader import LeaseLock
from controller.runtime.manager import Manager
from controller.unreadable import UnreadableObjects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from api.meta import KubeObject
    from controller.environment import Environment, Flags
    from controller.runtime.client import Client

JSON = dict[str, Any]

_log = structlog.get_logger(__name__)


LEASE_NAME = "modelmesh-controller-leader-lock"
"""As the original's: a controller of either kind waits for the other."""


class StartError(ControllerError):
    """The process cannot do its work in this cluster; the text says what to change."""


async def _check_permissions(client: Client, environment: Environment) -> None:
    """In cluster scope, makes sure that the whole cluster may be read."""
    if environment.namespace_scope:
        return
    with suppress(NotFound):
        try:
            await client.get(NAMESPACE, "foo")
        except Forbidden as error:
            raise StartError(
                "no permissions for the whole cluster; grant the ClusterRole, or set NAMESPACE_SCOPE=true "
                f"to serve namespace {environment.namespace} alone: {error}",
            ) from error


async def _readable(client: Client, kind: type[KubeObject], namespace: str) -> bool:
    try:
        await client.list(kind.RESOURCE, namespace if kind.RESOURCE.namespaced else "", limit=1)
    except (NotFound, Forbidden) as error:
        _log.info("kind is not served", kind=kind.RESOURCE.kind, reason=str(error))
        return False
    return True


async def _sources(client: Client, environment: Environment) -> Sources:
    namespace = environment.namespace if environment.namespace_scope else ""

    async def available(wanted: bool | None, kind: type[KubeObject], variable: str) -> bool:  # noqa: FBT001
        if wanted is False:
            return False
        readable = await _readable(client, kind, namespace)
        if wanted and not readable:
            raise StartError(f"{variable} is true, but {kind.RESOURCE.plural} cannot be read")
        return readable

    return Sources(
        inference_services=await available(
            environment.inference_services, InferenceService, "ENABLE_ISVC_WATCH"
        ),
        cluster_runtimes=await available(
            environment.cluster_runtimes, ClusterServingRuntime, "ENABLE_CSR_WATCH"
        ),
        secrets=await available(environment.secrets, Secret, "ENABLE_SECRET_WATCH"),
        monitors=await _readable(client, ServiceMonitor, namespace),
    )


def _lock(environment: Environment, flags: Flags) -> LeaseLock | None:
    """Returns the lease to hold while acting; None without leader election."""
    if not flags.enable_leader_election:
        return None
    if flags.leader_elect_type != "lease":
        raise StartError(
            "--leader-elect-type=life is not supported: its lock outlives a process that hangs; use lease"
        )
    try:
        return LeaseLock(
            LEASE_NAME,
            environment.namespace,
            lease_duration=flags.leader_elect_lease_duration_s,
            renew_deadline=flags.leader_elect_lease_renew_deadline_s,
            retry_period=flags.leader_elect_retry_period_s,
        )
    except ValueError as error:
        raise StartError(f"--leader-elect-lease-*, --leader-elect-retry-period-sec: {error}") from error


async def _tell(manager: Manager, unreadable: UnreadableObjects) -> None:
    """Tells of objects that cannot be read, once this process may write."""
    await manager.wait_ready()
    await unreadable.report(EventRecorder(manager.client, COMPONENT))


class _Process:
    """One run of the controller, from the first question to the API server to the last answer."""

    def __init__(self, client: Client, environment: Environment, flags: Flags) -> None:
        self._client = client
        self._environment = environment
        self._flags = flags
        self._manager: Manager | None = None
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Stops in order."""
        self._stop.set()
        if self._manager is not None:
            self._manager.stop()

    @property
    def ready(self) -> bool:
        """Whether objects are being reconciled, or would be if this process were elected."""
        return self._manager is not None and self._manager.ready

    async def run(self) -> None:
        """Waits for what it needs, then works until it is stopped."""
        initial = await self._configuration()
        if self._stop.is_set():
            return
        environment = self._environment
        sources = await _sources(self._client, environment)
        namespaces = [environment.namespace] if environment.namespace_scope else None
        unreadable = UnreadableObjects()
        self._manager = manager = Manager(
            self._client,
            namespaces=namespaces,
            on_unparsable=unreadable,
            leader_election=_lock(environment, self._flags),
        )
        manager.add_task(lambda: _tell(manager, unreadable))
        assembly = Assembly(manager, environment, sources, initial)
        _log.info(
            "starting",
            namespace=environment.namespace,
            scope="namespace" if environment.namespace_scope else "cluster",
            inference_services=sources.inference_services,
            cluster_runtimes=sources.cluster_runtimes,
        )
        try:
            await manager.run()
        finally:
            await assembly.close()

    async def _configuration(self) -> JSON | None:
        """Returns the ConfigMap to start with; a stop ends the wait for it."""
        environment = self._environment
        recorder = EventRecorder(self._client, COMPONENT)
        waits = configured.usable(self._client, recorder, environment.namespace, environment.defaults_file)
        found, stopped = asyncio.create_task(waits), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([found, stopped], return_when=asyncio.FIRST_COMPLETED)
            return await found if found.done() else None
        finally:
            found.cancel()
            stopped.cancel()


async def run(environment: Environment, flags: Flags) -> None:
    """Runs the controller until SIGTERM or SIGINT.

    Raises:
        ControllerError: configuration, permissions or addresses cannot be used.
        ClientError: the API server does not answer at the start.
    """
    async with await load_client(environment.kubeconfig) as client:
        await _check_permissions(client, environment)
        process = _Process(client, environment, flags)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, process.stop)
        addresses = (flags.health_probe_bind_address, flags.metrics_addr)
        async with (
            probes.serving(*addresses, ready=lambda: process.ready),
            webhook.serving(environment.webhook_certificates),
        ):
            await process.run()
    _log.info("stopped")


def main(argv: Sequence[str]) -> int:
    """Runs the controller; returns the process's exit status: 1 where it could not start."""
    flags = parse_flags(argv)
    environment = read_environment(os.environ)
    try:
        asyncio.run(run(environment, flags))
    except (ControllerError, ClientError) as error:
        _log.error("cannot run", error=str(error))
        return 1
    return 0

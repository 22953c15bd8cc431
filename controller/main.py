"""The controller's process: `modelmesh controller`."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog

from api.core import CONFIG_MAP, NAMESPACE
from api.v1alpha1 import ClusterServingRuntime
from api.v1beta1 import InferenceService
from controller import config, probes
from controller.assembly import Assembly, Sources
from controller.environment import parse_flags, read_environment
from controller.errors import ControllerError
from controller.runtime.errors import ClientError, Forbidden, NotFound
from controller.runtime.http_client import load_client
from controller.runtime.manager import Manager

if TYPE_CHECKING:
    from collections.abc import Sequence

    from api.meta import KubeObject
    from controller.environment import Environment, Flags
    from controller.runtime.client import Client

JSON = dict[str, Any]

_log = structlog.get_logger(__name__)


class StartError(ControllerError):
    """The process cannot do its work in this cluster; the text says what to change."""


async def _configuration(client: Client, namespace: str) -> JSON | None:
    with suppress(NotFound):
        return await client.get(CONFIG_MAP, config.CONFIG_MAP, namespace)
    return None


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
    inference_services = environment.inference_services
    if inference_services is None or inference_services:
        readable = await _readable(client, InferenceService, namespace)
        if inference_services and not readable:
            raise StartError("ENABLE_ISVC_WATCH is true, but InferenceServices cannot be read")
        inference_services = readable
    cluster_runtimes = environment.cluster_runtimes
    if cluster_runtimes is None or cluster_runtimes:
        readable = await _readable(client, ClusterServingRuntime, "")
        if cluster_runtimes and not readable:
            raise StartError("ENABLE_CSR_WATCH is true, but ClusterServingRuntimes cannot be read")
        cluster_runtimes = readable
    return Sources(inference_services=inference_services, cluster_runtimes=cluster_runtimes)


async def run(environment: Environment, flags: Flags) -> None:
    """Runs the controller until SIGTERM or SIGINT.

    Raises:
        ControllerError: configuration, permissions or addresses cannot be used.
        ClientError: the API server does not answer at the start.
    """
    async with await load_client(environment.kubeconfig) as client:
        await _check_permissions(client, environment)
        initial = await _configuration(client, environment.namespace)
        sources = await _sources(client, environment)
        namespaces = [environment.namespace] if environment.namespace_scope else None
        manager = Manager(client, namespaces=namespaces)
        assembly = Assembly(manager, environment, sources, initial)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, manager.stop)
        if flags.enable_leader_election:
            _log.warning(
                "leader election is not active in this release; run one replica",
                flag="--enable-leader-election",
            )
        _log.info(
            "starting",
            namespace=environment.namespace,
            scope="namespace" if environment.namespace_scope else "cluster",
            inference_services=sources.inference_services,
            cluster_runtimes=sources.cluster_runtimes,
        )
        addresses = (flags.health_probe_bind_address, flags.metrics_addr)
        try:
            async with probes.serving(*addresses, ready=lambda: manager.ready):
                await manager.run()
        finally:
            await assembly.close()
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

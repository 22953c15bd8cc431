"""Puts the controllers together: what each works with, what it watches, and what wakes it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from api.core import (
    SECRET,
    ConfigMap,
    Deployment,
    Endpoints,
    HorizontalPodAutoscaler,
    Namespace,
    PersistentVolumeClaim,
    Secret,
    Service,
)
from api.monitoring import ServiceMonitor
from api.v1alpha1 import ClusterServingRuntime, ServingRuntime
from controller import config, constraints, marks
from controller.configured import LiveConfiguration
from controller.demand import Demand
from controller.deployment.mesh import KVSTORE_PREFIX
from controller.mesh_client import MeshClients, ready_addresses
from controller.model_id import Source
from controller.model_kinds import INFERENCE_SERVICE, PREDICTOR, ModelKind
from controller.reconcilers import namespace as namespace_secrets
from controller.reconcilers.configuration import ConfigurationReconciler
from controller.reconcilers.namespace import NamespaceReconciler
from controller.reconcilers.predictor import ModelReconciler, Surroundings
from controller.reconcilers.runtime_status import RuntimeStatusReconciler
from controller.reconcilers.service import ServiceReconciler
from controller.reconcilers.servingruntime import RuntimeReconciler
from controller.registries import Registries
from controller.runtime import informer
from controller.runtime.controller import Controller
from controller.runtime.errors import NotFound
from controller.runtime.events import EventRecorder
from controller.runtime.predicate import (
    annotations_changed,
    any_of,
    generation_changed,
    labels_changed,
)
from controller.runtime.reconcile import Request
from controller.runtime_status import Problems
from controller.scope import Scope, switched
from controller.triggers import Registry
from controller.wakes import ModelWakes, NamespaceWakes, RuntimeWakes, addresses_changed, exists_otherwise
from store.connection import connect
from store.errors import ConnectionConfigError
from store.keys import Keyspace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from controller.config import Configuration
    from controller.environment import Environment
    from controller.runtime.manager import Manager
    from store.base import Store
    from store.connection import EtcdConnection

JSON = dict[str, Any]

_log = structlog.get_logger(__name__)

COMPONENT = "modelmesh-controller"
_WORKERS = 8
"""Models reconciled at the same time: each mostly waits for the mesh's answer."""
_DEFAULT_ETCD_SECRET = "model-serving-etcd"  # noqa: S105 -- the name of an object

_OF_A_MESH = informer.Scope(label_selector=marks.SERVICE)
_OF_A_RUNTIME = any_of(generation_changed, annotations_changed, labels_changed)
"""What a runtime's pods depend on; its status is ours."""
_CONSTRAINTS = informer.Scope(field_selector=f"metadata.name={constraints.NAME}")


@dataclass(frozen=True, slots=True)
class Sources:
    """Which optional kinds there are to watch.

    Attributes:
        inference_services: the InferenceService CRD is there and may be read.
        cluster_runtimes: the ClusterServingRuntime CRD is there and may be read.
        secrets: Secrets may be watched in all served namespaces; else they are read when they are needed.
        monitors: the Prometheus operator's ServiceMonitor CRD is there and may be read.
    """

    inference_services: bool = True
    cluster_runtimes: bool = True
    secrets: bool = True
    monitors: bool = False


class Assembly:
    """All controllers of one process, registered with a manager.

    Args:
        manager: runs them; its cache covers the served namespaces.
        environment: what the process was told.
        sources: which optional kinds there are.
        initial: the ConfigMap of the configuration as the start finds it.
        open_store: opens the registry's store.

    Raises:
        ConfigurationError: the configuration cannot be used.
    """

    def __init__(
        self,
        manager: Manager,
        environment: Environment,
        sources: Sources = Sources(),
        initial: JSON | None = None,
        open_store: Callable[[EtcdConnection], Awaitable[Store]] = connect,
    ) -> None:
        self._manager = manager
        self._environment = environment
        self._sources = sources
        cache = manager.cache
        own = environment.namespace
        self._recorder = EventRecorder(manager.client, COMPONENT)
        self._config_scope = informer.Scope((own,), field_selector=f"metadata.name={config.CONFIG_MAP}")
        configurations = cache.informer(ConfigMap, self._config_scope)
        self._live = LiveConfiguration(own, configurations, environment.defaults_file, initial)
        self._namespaces = None if environment.namespace_scope else cache.lister(Namespace)
        self._scope = Scope(own, self._namespaces)
        self._kinds: list[ModelKind[Any]] = [PREDICTOR]
        if sources.inference_services:
            self._kinds.append(INFERENCE_SERVICE)
        self._etcd_secret = _etcd_secret(self._live.current(), environment)
        self._own_secret = informer.Scope((own,), field_selector=f"metadata.name={self._etcd_secret}")
        self._secrets = cache.informer(Secret, self._own_secret)
        self._storage_secret = self._live.current().storage_secret_name
        self._demand = Demand()
        for kind in self._kinds:
            cache.informer(kind.type).add_handler(self._demand.follow(kind))
        self._endpoints = cache.lister(Endpoints)
        self._monitors = cache.lister(ServiceMonitor, _OF_A_MESH) if sources.monitors else None
        self._meshes = MeshClients(self._addresses, right=manager.right)
        self._news: dict[Source, asyncio.Queue[Request]] = {source: asyncio.Queue() for source in Source}
        self._runtime_news: asyncio.Queue[Request] = asyncio.Queue()
        self._problems = Problems(self._refused)
        self._registries = Registries(
            locate=self._registry, connect=open_store, wake=self._wake, pods_changed=self._pods_changed
        )
        Controller(
            "configuration", ConfigurationReconciler(self._live, configurations, self._recorder)
        ).watches(ConfigMap, scope=self._config_scope).register(manager)
        self._runtimes = self._register_runtimes()
        self._runtime_status = self._register_runtime_status()
        self._register_namespaces()
        self._register_services()
        for kind in self._kinds:
            self._register_models(kind)
        self._secrets.add_handler(lambda _old, _new: self._registries.relocate())
        configurations.add_handler(lambda _old, _new: self._registries.relocate())
        manager.add_task(self._registries.run)

    async def close(self) -> None:
        """Closes the connections to the meshes."""
        await self._meshes.close()

    def _wake(self, source: Source, request: Request) -> None:
        self._news[source].put_nowait(request)

    def _pods_changed(self, namespace: str) -> None:
        for request in self._runtime_status.in_namespace(namespace):
            self._runtime_news.put_nowait(request)

    def _refused(self, runtime: Request) -> None:
        self._runtime_news.put_nowait(runtime)
        self._runtime_news.put_nowait(Request("", runtime.name))

    def _addresses(self, namespace: str) -> list[str]:
        configuration = self._live.current()
        if configuration.model_mesh_endpoint:
            return [configuration.model_mesh_endpoint]
        found = self._endpoints.get(configuration.inference_service_name, namespace)
        return ready_addresses(found, "grpc")

    def _registry(self, namespace: str) -> Registry | None:
        secret = self._secrets.get(self._etcd_secret, self._environment.namespace)
        if secret is None:
            return None
        try:
            connection = namespace_secrets.connection(secret)
        except ConnectionConfigError as error:
            _log.error("etcd Secret cannot be used", secret=secret.name, error=str(error))
            return None
        service = self._live.current().inference_service_name
        keys = Keyspace(self._scope.root_prefix(namespace), service=service, kv_prefix=KVSTORE_PREFIX)
        return Registry(connection, keys)

    def _named(self, secret: str) -> informer.Scope:
        return informer.Scope(field_selector=f"metadata.name={secret}")

    async def _secret(self, name: str, namespace: str) -> Secret | None:
        """Returns a Secret of a served namespace, one of the two kinds that we have to do with there."""
        if self._sources.secrets:
            return self._manager.cache.lister(Secret, self._named(name)).get(name, namespace)
        try:
            return Secret.parse(await self._manager.client.get(SECRET, name, namespace))
        except NotFound:
            return None

    def _register_runtimes(self) -> RuntimeReconciler:
        cache = self._manager.cache
        cluster = self._sources.cluster_runtimes
        reconciler = RuntimeReconciler(
            client=self._manager.client,
            recorder=self._recorder,
            scope=self._scope,
            configuration=self._live.current,
            etcd_secret=self._etcd_secret,
            storage_secret=self._storage_secret,
            cluster_runtimes=cache.lister(ClusterServingRuntime) if cluster else None,
            namespaced_runtimes=cache.lister(ServingRuntime),
            deployments=cache.lister(Deployment, _OF_A_MESH),
            autoscalers=cache.lister(HorizontalPodAutoscaler, _OF_A_MESH),
            volume_claims=cache.lister(PersistentVolumeClaim),
            storages=lambda namespace: self._secret(self._storage_secret, namespace),
            demand=self._demand,
            problems=self._problems,
        )
        wakes = RuntimeWakes(
            self._scope,
            reconciler.runtimes,
            lambda: self._live.current().rest_proxy.enabled,
        )
        controller = (
            Controller("servingruntime", reconciler)
            .watches(ServingRuntime, predicate=_OF_A_RUNTIME)
            .watches(Deployment, enqueue=wakes.owner, scope=_OF_A_MESH)
            .watches(HorizontalPodAutoscaler, enqueue=wakes.owner, scope=_OF_A_MESH)
            .watches(PersistentVolumeClaim, enqueue=wakes.in_namespace, predicate=exists_otherwise)
            .watches(ConfigMap, enqueue=wakes.all, scope=self._config_scope)
        )
        if cluster:
            controller.watches(ClusterServingRuntime, enqueue=wakes.everywhere, predicate=_OF_A_RUNTIME)
        if self._sources.secrets:
            storages = self._named(self._storage_secret)
            controller.watches(Secret, enqueue=wakes.in_namespace, scope=storages)
        for kind in self._kinds:
            controller.watches(
                kind.type,
                enqueue=wakes.supporting(kind),
                predicate=any_of(generation_changed, annotations_changed),
            )
        if self._namespaces is not None:
            controller.watches(Namespace, enqueue=wakes.in_namespace, predicate=switched)
        controller.register(self._manager)
        return reconciler

    def _register_runtime_status(self) -> RuntimeStatusReconciler:
        cache = self._manager.cache
        cluster = self._sources.cluster_runtimes
        reconciler = RuntimeStatusReconciler(
            client=self._manager.client,
            scope=self._scope,
            configuration=self._live.current,
            cluster_runtimes=cache.lister(ClusterServingRuntime) if cluster else None,
            namespaced_runtimes=cache.lister(ServingRuntime),
            runtimes=self._runtimes.runtimes,
            deployments=cache.lister(Deployment, _OF_A_MESH),
            instances=self._registries.instances,
            refusals=self._problems,
        )
        controller = (
            Controller("runtimestatus", reconciler)
            .watches(ServingRuntime, enqueue=reconciler.of)
            .watches(Deployment, enqueue=reconciler.owner, scope=_OF_A_MESH)
            .watches(ConfigMap, enqueue=reconciler.everywhere, scope=self._config_scope)
            .watches_channel(self._runtime_news)
        )
        if cluster:
            controller.watches(ClusterServingRuntime, enqueue=reconciler.of)
        if self._namespaces is not None:
            controller.watches(Namespace, enqueue=reconciler.everywhere, predicate=switched)
        controller.register(self._manager)
        return reconciler

    def _register_namespaces(self) -> None:
        cache = self._manager.cache
        wakes = NamespaceWakes(self._scope)
        reconciler = NamespaceReconciler(
            client=self._manager.client,
            recorder=self._recorder,
            scope=self._scope,
            configuration=self._live.current,
            etcd_secret=self._etcd_secret,
            runtimes=self._runtimes.runtimes,
            secrets=self._secrets,
            copies=lambda namespace: self._secret(self._etcd_secret, namespace),
            storages=lambda namespace: self._secret(self._storage_secret, namespace),
            config_maps=cache.lister(ConfigMap, _CONSTRAINTS),
        )
        controller = (
            Controller("namespace", reconciler)
            .watches(ServingRuntime, enqueue=wakes.of, predicate=generation_changed)
            .watches(ConfigMap, enqueue=wakes.of, scope=_CONSTRAINTS)
            .watches(ConfigMap, enqueue=wakes.all, scope=self._config_scope)
            .watches(Secret, enqueue=wakes.all, scope=self._own_secret)
        )
        if self._sources.cluster_runtimes:
            controller.watches(ClusterServingRuntime, enqueue=wakes.all, predicate=generation_changed)
        if self._sources.secrets:
            controller.watches(Secret, enqueue=wakes.of, scope=self._named(self._storage_secret))
        if self._namespaces is not None:
            controller.watches(Namespace, enqueue=wakes.of, predicate=switched)
            if self._sources.secrets:
                controller.watches(Secret, enqueue=wakes.of, scope=self._named(self._etcd_secret))
        controller.register(self._manager)

    def _register_services(self) -> None:
        start: asyncio.Queue[Request] = asyncio.Queue()
        start.put_nowait(Request(self._environment.namespace, ""))
        reconciler = ServiceReconciler(
            client=self._manager.client,
            scope=self._scope,
            configuration=self._live.current,
            services=self._manager.cache.lister(Service, _OF_A_MESH),
            namespaces=self._namespaces,
            monitors=self._monitors,
            own_deployment=self._environment.deployment,
            follow=self._registries.follow,
            leave=self._registries.leave,
        )
        wakes = NamespaceWakes(self._scope)
        controller = (
            Controller("service", reconciler)
            .watches(Service, enqueue=wakes.of, scope=_OF_A_MESH)
            .watches(ConfigMap, enqueue=wakes.all, scope=self._config_scope)
            .watches_channel(start)
        )
        if self._monitors is not None:
            controller.watches(ServiceMonitor, enqueue=wakes.of, scope=_OF_A_MESH)
        if self._namespaces is not None:
            controller.watches(Namespace, enqueue=wakes.of, predicate=switched)
        controller.register(self._manager)

    def _register_models(self, kind: ModelKind[Any]) -> None:
        objects = self._manager.cache.informer(kind.type)
        reconciler = ModelReconciler(
            kind,
            objects,
            Surroundings(
                client=self._manager.client,
                recorder=self._recorder,
                scope=self._scope,
                configuration=self._live.current,
                catalog=self._runtimes.catalog,
                mesh=self._meshes.of,
                registered=self._registries.registered,
            ),
        )
        wakes = ModelWakes(
            kind,
            objects,
            self._scope,
            catalog=self._runtimes.catalog,
            reachable=lambda namespace: bool(self._addresses(namespace)),
        )
        controller = (
            Controller(kind.source.kind.lower(), reconciler, workers=_WORKERS)
            .watches(kind.type)
            .watches(Endpoints, enqueue=wakes.beside_pods, predicate=addresses_changed)
            .watches(ServingRuntime, enqueue=wakes.beside_runtime, predicate=generation_changed)
            .watches(ConfigMap, enqueue=wakes.all, scope=self._config_scope)
            .watches_channel(self._news[kind.source])
        )
        if self._sources.cluster_runtimes:
            controller.watches(ClusterServingRuntime, enqueue=wakes.unserved, predicate=generation_changed)
        if self._namespaces is not None:
            controller.watches(Namespace, enqueue=wakes.within, predicate=switched)
        controller.register(self._manager)


def _etcd_secret(configuration: Configuration, environment: Environment) -> str:
    named = environment.etcd_secret
    deprecated = configuration.etcd_secret_name
    return deprecated if deprecated and named == _DEFAULT_ETCD_SECRET else named

"""ServingRuntimes and ClusterServingRuntimes: the type constraints of a namespace, a Deployment each."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from api.core import CONFIG_MAP, DEPLOYMENT, ConfigMap, Deployment
from controller import constraints, deployment, runtime_validation, runtimes
from controller.errors import InvalidRuntimeError
from controller.runtime.apply import ensure
from controller.runtime.controller import controller_of
from controller.runtime.errors import Invalid, NotFound
from controller.runtime.reconcile import Request, Result
from controller.runtimes import Catalog
from controller.scale_to_zero import IdleTimers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from api.meta import KubeObject
    from api.resource import Resource
    from api.v1alpha1 import ClusterServingRuntime, PredictorSpec, ServingRuntime
    from controller.config import Configuration
    from controller.runtime.client import Client
    from controller.runtime.events import EventRecorder
    from controller.runtime.informer import Lister
    from controller.scope import Scope

_log = structlog.get_logger(__name__)

RUNTIME_KINDS = frozenset({"ServingRuntime", "ClusterServingRuntime"})


@dataclass(slots=True)
class RuntimeReconciler:
    """Reconciles a runtime in a namespace; a cluster's runtime once in each served namespace.

    Attributes:
        client: the API server.
        recorder: records Events.
        scope: the served namespaces.
        configuration: returns the configuration in effect.
        etcd_secret: name of the Secret with `etcd_connection`.
        cluster_runtimes: the cluster's runtimes; None in namespace scope.
        namespaced_runtimes: the namespaces' own.
        deployments: the cache of Deployments.
        config_maps: the cache of `tc-config` ConfigMaps.
        models: returns the valid models of a namespace.
        clock: monotonic time in seconds.
    """

    client: Client
    recorder: EventRecorder
    scope: Scope
    configuration: Callable[[], Configuration]
    etcd_secret: str
    cluster_runtimes: Lister[ClusterServingRuntime] | None
    namespaced_runtimes: Lister[ServingRuntime]
    deployments: Lister[Deployment]
    config_maps: Lister[ConfigMap]
    models: Callable[[str], Iterable[PredictorSpec]]
    clock: Callable[[], float] = lambda: asyncio.get_running_loop().time()
    idle: IdleTimers = field(default_factory=IdleTimers)

    def runtimes(self, namespace: str) -> dict[str, ServingRuntime | ClusterServingRuntime]:
        """Returns the runtimes that count in a namespace, by name, were it served."""
        cluster = self.cluster_runtimes.list() if self.cluster_runtimes is not None else []
        return runtimes.collect(cluster, self.namespaced_runtimes.list(namespace))

    def catalog(self, namespace: str) -> Catalog:
        """Returns what the runtimes of a namespace can load."""
        rest = self.configuration().rest_proxy.enabled
        found = self.runtimes(namespace) if self.scope.enabled(namespace) else {}
        return Catalog(runtimes.enabled(found), rest=rest)

    async def reconcile(self, request: Request) -> Result:
        """Makes the namespace's type constraints and the runtime's Deployment be as they should."""
        found = self.runtimes(request.namespace)
        served = self.scope.enabled(request.namespace)
        await self._constrain(request.namespace, found if served else {})
        runtime = found.get(request.name)
        if runtime is None:
            # Its Deployment goes with it, by the owner reference; not so if it has only ceased to be ours.
            self.idle.forget(request)
            if self.cluster_runtimes is not None and self.cluster_runtimes.get(request.name) is not None:
                await self._remove_deployments(request)
            return Result()
        configuration = self.configuration()
        if not served:
            self.idle.forget(request)
            await self._remove_deployments(request)
            return Result()
        try:
            runtime_validation.check(runtime.spec, configuration.built_in_server_types)
        except InvalidRuntimeError as error:
            # The Deployment stays as it is. Trying again is of no use before something has changed.
            await self._report(runtime, error)
            return Result()
        if runtime.spec.disabled or not runtime.spec.multi_model:
            self.idle.forget(request)
            await self._remove_deployments(request)
            return Result()
        return await self._deploy(request, runtime, configuration)

    async def _deploy(
        self,
        request: Request,
        runtime: ServingRuntime | ClusterServingRuntime,
        configuration: Configuration,
    ) -> Result:
        spec = runtime.spec
        alone = Catalog({runtime.name: spec}, rest=configuration.rest_proxy.enabled)
        replicas = self.idle.decide(
            request,
            wanted=configuration.pods_per_runtime if spec.replicas is None else spec.replicas,
            needed=any(alone.supporting(model) for model in self.models(request.namespace)),
            config=configuration.scale_to_zero,
            now=self.clock(),
        )
        context = deployment.PodContext(
            runtime=runtime,
            namespace=request.namespace,
            configuration=configuration,
            etcd_secret=self.etcd_secret,
            replicas=replicas.count,
        )
        try:
            wanted = deployment.build(context)
        except InvalidRuntimeError as error:
            await self._report(runtime, error)
            return Result()
        live = self.deployments.get(wanted["metadata"]["name"], request.namespace)
        try:
            done = await ensure(self.client, DEPLOYMENT, wanted, live=live)
        except Invalid as error:
            # What its author wrote, such as an image without a name, only the API server could judge.
            await self._report(runtime, error)
            return Result()
        if done.action != "unchanged":
            _log.info(f"deployment {done.action}", runtime=str(request), replicas=replicas.count)
        await self._remove_deployments(request, keep=wanted["metadata"]["name"])
        return Result(replicas.decide_again_s)

    async def _constrain(
        self,
        namespace: str,
        found: Mapping[str, ServingRuntime | ClusterServingRuntime],
    ) -> None:
        live = self.config_maps.get(constraints.NAME, namespace)
        if found:
            rest = self.configuration().rest_proxy.enabled
            wanted = constraints.config_map(namespace, runtimes.enabled(found), rest=rest)
            await ensure(self.client, CONFIG_MAP, wanted, live=live)
        elif live is not None and live.metadata.labels.items() >= constraints.COMMON_LABELS.items():
            await self._delete(CONFIG_MAP, live)

    async def _remove_deployments(self, request: Request, *, keep: str = "") -> None:
        """Removes the runtime's Deployments; `keep` stays: others are from before the Service was renamed."""
        for live in self.deployments.list(request.namespace):
            owner = controller_of(live)
            owned = owner is not None and owner.kind in RUNTIME_KINDS and owner.name == request.name
            if owned and live.name != keep:
                await self._delete(DEPLOYMENT, live)

    async def _delete(self, resource: Resource, live: KubeObject) -> None:
        try:
            await self.client.delete(resource, live.name, live.namespace)
        except NotFound:
            _log.debug("gone already", kind=resource.kind, namespace=live.namespace, name=live.name)

    async def _report(
        self, runtime: ServingRuntime | ClusterServingRuntime, error: InvalidRuntimeError | Invalid
    ) -> None:
        _log.warning("runtime not usable", runtime=runtime.name, error=str(error))
        await self.recorder.event(runtime, "Warning", "InvalidSpec", f"Not deployed: {error}")

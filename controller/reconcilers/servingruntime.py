"""ServingRuntimes and ClusterServingRuntimes: a Deployment each, and an autoscaler where one is asked for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from api.core import (
    DEPLOYMENT,
    HORIZONTAL_POD_AUTOSCALER,
    Deployment,
    HorizontalPodAutoscaler,
    PersistentVolumeClaim,
)
from controller import autoscaling, claims, deployment, labels, marks, runtime_validation, runtimes
from controller.errors import InvalidRuntimeError
from controller.runtime.apply import ensure, ensure_absent
from controller.runtime.controller import controller_of
from controller.runtime.errors import Invalid
from controller.runtime.reconcile import Request, Result
from controller.runtimes import Catalog
from controller.scale_to_zero import IdleTimers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from api.core import Secret
    from api.v1alpha1 import ClusterServingRuntime, ServingRuntime
    from controller.autoscaling import Autoscaling
    from controller.config import Configuration
    from controller.demand import Demand, Wish
    from controller.runtime.client import JSON, Client
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
        storage_secret: name of the Secret with the storages.
        cluster_runtimes: the cluster's runtimes; None in namespace scope.
        namespaced_runtimes: the namespaces' own.
        deployments: the cache of Deployments.
        autoscalers: the cache of HorizontalPodAutoscalers.
        volume_claims: the cache of PersistentVolumeClaims.
        storages: returns the storage Secret of a namespace.
        demand: what the models of a namespace ask for.
        clock: monotonic time in seconds.
        problems: why a runtime is not deployed as it asks for, by namespace and name.
    """

    client: Client
    recorder: EventRecorder
    scope: Scope
    configuration: Callable[[], Configuration]
    etcd_secret: str
    storage_secret: str
    cluster_runtimes: Lister[ClusterServingRuntime] | None
    namespaced_runtimes: Lister[ServingRuntime]
    deployments: Lister[Deployment]
    autoscalers: Lister[HorizontalPodAutoscaler]
    volume_claims: Lister[PersistentVolumeClaim]
    storages: Callable[[str], Awaitable[Secret | None]]
    demand: Demand
    clock: Callable[[], float] = lambda: asyncio.get_running_loop().time()
    idle: IdleTimers = field(default_factory=IdleTimers)
    problems: dict[Request, str] = field(default_factory=dict)

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
        """Makes the runtime's Deployment and autoscaler be as they should, or not be."""
        served = self.scope.enabled(request.namespace)
        runtime = self._find(request)
        if runtime is None or not served or runtime.spec.disabled or not runtime.spec.multi_model:
            self.idle.forget(request)
            self.problems.pop(request, None)
            if runtime is not None or not served:
                # That of a runtime which was deleted goes with it, by the owner reference.
                await self._remove_deployments(request, served=served)
            return Result()
        configuration = self.configuration()
        try:
            runtime_validation.check(runtime.spec, configuration.built_in_server_types)
            scaling = autoscaling.autoscaling(runtime.metadata.annotations, runtime.spec)
        except InvalidRuntimeError as error:
            # The Deployment stays as it is. Trying again is of no use before something has changed.
            await self._report(request, runtime, error)
            return Result()
        return await self._deploy(request, runtime, configuration, scaling)

    def _find(self, request: Request) -> ServingRuntime | ClusterServingRuntime | None:
        if own := self.namespaced_runtimes.get(request.name, request.namespace):
            return own
        return None if self.cluster_runtimes is None else self.cluster_runtimes.get(request.name)

    async def _deploy(
        self,
        request: Request,
        runtime: ServingRuntime | ClusterServingRuntime,
        configuration: Configuration,
        scaling: Autoscaling | None,
    ) -> Result:
        spec = runtime.spec
        own_labels = labels.runtime_labels(runtime.name, spec, rest=configuration.rest_proxy.enabled)
        wishes = self.demand.of(request.namespace, own_labels)
        wanted = configuration.pods_per_runtime if spec.replicas is None else spec.replicas
        replicas = self.idle.decide(
            request,
            wanted=wanted if scaling is None else scaling.minimum,
            needed=bool(wishes),
            config=configuration.scale_to_zero,
            now=self.clock(),
        )
        if not replicas.count:
            scaling = None
        name = deployment.name_of(configuration, runtime.name)
        live = self.deployments.get(name, request.namespace)
        context = deployment.PodContext(
            runtime=runtime,
            namespace=request.namespace,
            configuration=configuration,
            controller=self.scope.own,
            etcd_secret=self.etcd_secret,
            storage_secret=self.storage_secret,
            replicas=replicas.count if scaling is None else _autoscaled(live, replicas.count),
            claims=await self._claims(request.namespace, wishes, configuration),
        )
        try:
            built = deployment.build(context)
            done = await ensure(self.client, DEPLOYMENT, built, live=live)
        except (InvalidRuntimeError, Invalid) as error:
            # Some of what its author wrote, such as an image without a name, only the API server can judge.
            await self._report(request, runtime, error)
            return Result()
        self.problems.pop(request, None)
        if done.action != "unchanged":
            _log.info(f"deployment {done.action}", runtime=str(request), replicas=context.replicas)
        await self._autoscale(runtime, scaling, built)
        await self._remove_deployments(request, served=True, keep=name)
        return Result(replicas.decide_again_s)

    async def _claims(
        self, namespace: str, wishes: Iterable[Wish], configuration: Configuration
    ) -> tuple[str, ...]:
        found = claims.of_secret(await self.storages(namespace))
        if configuration.allow_any_pvc:
            # One that is not there would keep the pods from starting; so only its model fails to load.
            named = (wish.claim for wish in wishes if wish.claim)
            found |= {claim for claim in named if self.volume_claims.get(claim, namespace) is not None}
        return tuple(sorted(found))

    async def _autoscale(
        self,
        runtime: ServingRuntime | ClusterServingRuntime,
        scaling: Autoscaling | None,
        built: JSON,
    ) -> None:
        metadata = built["metadata"]
        live = self.autoscalers.get(metadata["name"], metadata["namespace"])
        if scaling is not None:
            wanted = autoscaling.build(runtime, scaling, built)
            done = await ensure(self.client, HORIZONTAL_POD_AUTOSCALER, wanted, live=live)
            if done.action != "unchanged":
                _log.info(f"autoscaler {done.action}", namespace=metadata["namespace"], name=metadata["name"])
        elif live is not None:
            await ensure_absent(self.client, live)

    async def _remove_deployments(self, request: Request, *, served: bool, keep: str = "") -> None:
        """Removes the runtime's Deployments and their autoscalers.

        `keep` stays; others are from before the Service was renamed. In a namespace that is not served only
        those of this controller go: another may serve it.
        """
        namespace = request.namespace
        present = [*self.autoscalers.list(namespace), *self.deployments.list(namespace)]
        for live in present:
            owner = controller_of(live)
            owned = owner is not None and owner.kind in RUNTIME_KINDS and owner.name == request.name
            ours = served or marks.made_by(live, self.scope.own)
            if owned and ours and live.name != keep:
                await ensure_absent(self.client, live)

    async def _report(
        self,
        request: Request,
        runtime: ServingRuntime | ClusterServingRuntime,
        error: InvalidRuntimeError | Invalid,
    ) -> None:
        self.problems[request] = str(error)
        _log.warning("runtime not usable", runtime=runtime.name, error=str(error))
        await self.recorder.event(runtime, "Warning", "InvalidSpec", f"Not deployed: {error}")


def _autoscaled(live: Deployment | None, minimum: int) -> int:
    """Returns the replicas of a Deployment that an autoscaler has in hand: what it set, once it has."""
    present = 0 if live is None else live.spec.replicas or 0
    return present or minimum

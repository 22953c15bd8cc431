"""The status of ServingRuntimes and ClusterServingRuntimes, which others reconcile: here it is only shown."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from controller import runtime_status, runtime_validation
from controller.reconcilers.servingruntime import RUNTIME_KINDS
from controller.runtime.controller import controller_of
from controller.runtime.errors import NotFound
from controller.runtime.reconcile import Request, Result
from controller.runtime_status import Local, Problems, Summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from api.core import Deployment
    from api.meta import KubeObject
    from api.v1alpha1 import ClusterServingRuntime, ServingRuntime
    from controller.config import Configuration
    from controller.runtime.client import Client
    from controller.runtime.informer import Lister
    from controller.scope import Scope
    from store.records import InstanceRecord

JSON = dict[str, Any]

_log = structlog.get_logger(__name__)

_PAUSE_S = 10.0
"""Between two writes for models and memory alone, which change with every load."""
_NOTHING = Summary(models=0, memory=(0, 0))
_NUMBERS = frozenset({"models", "memory"})
_CLUSTER_KIND = "ClusterServingRuntime"


@dataclass(slots=True)
class RuntimeStatusReconciler:
    """Reconciles the status of a runtime; the request of a cluster's runtime has no namespace.

    Attributes:
        client: the API server.
        scope: the served namespaces.
        configuration: returns the configuration in effect.
        cluster_runtimes: the cluster's runtimes; None in namespace scope.
        namespaced_runtimes: the namespaces' own.
        runtimes: returns the runtimes that count in a namespace, by name.
        deployments: the cache of Deployments.
        instances: returns what the mesh says of the pods of a namespace; None while that cannot be read.
        refusals: why runtimes are not deployed, by namespace and name.
        clock: monotonic time in seconds.
        now: returns the present time.
    """

    client: Client
    scope: Scope
    configuration: Callable[[], Configuration]
    cluster_runtimes: Lister[ClusterServingRuntime] | None
    namespaced_runtimes: Lister[ServingRuntime]
    runtimes: Callable[[str], Mapping[str, ServingRuntime | ClusterServingRuntime]]
    deployments: Lister[Deployment]
    instances: Callable[[str], Sequence[InstanceRecord] | None]
    refusals: Problems
    clock: Callable[[], float] = lambda: asyncio.get_running_loop().time()
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _written: dict[Request, float] = field(default_factory=dict)

    async def reconcile(self, request: Request) -> Result:
        """Writes the runtime's status where it differs."""
        runtime = self._find(request)
        if runtime is None:
            self._written.pop(request, None)
            return Result()
        raw = runtime.dump()
        shown: JSON = raw.get("status") or {}
        wanted = self._wanted(runtime, shown)
        if wanted == shown:
            return Result()
        if (pause := self._pause(request, shown, wanted)) > 0:
            return Result(pause)
        if not _same(shown, wanted, _NUMBERS):
            self._written[request] = self.clock()
        try:
            await self.client.replace(runtime.RESOURCE, raw | {"status": wanted}, subresource="status")
        except NotFound:
            # Gone meanwhile, or the CRD is an older one (KServe's, the original's) without status.
            _log.info("runtime has no status", runtime=str(request))
        return Result()

    # Wakes.

    def of(self, obj: KubeObject) -> Iterator[Request]:
        """The runtime itself, and the cluster's runtimes that it hides."""
        yield Request(obj.namespace, obj.name)
        if obj.namespace and self.cluster_runtimes is not None:
            yield Request("", obj.name)

    def owner(self, deployment: Deployment) -> Iterator[Request]:
        """The runtime of a Deployment."""
        owner = controller_of(deployment)
        if owner is not None and owner.kind in RUNTIME_KINDS:
            yield Request("" if owner.kind == _CLUSTER_KIND else deployment.namespace, owner.name)

    def in_namespace(self, namespace: str) -> Iterator[Request]:
        """The runtimes that count in a namespace."""
        for name, runtime in self.runtimes(namespace).items():
            yield Request(runtime.namespace, name)

    def everywhere(self, _: KubeObject) -> Iterator[Request]:
        """All runtimes of all served namespaces, and all of the cluster."""
        if self.cluster_runtimes is not None:
            yield from (Request("", runtime.name) for runtime in self.cluster_runtimes.list())
        for namespace in self.scope.all_enabled():
            yield from (Request(namespace, found.name) for found in self.namespaced_runtimes.list(namespace))

    # What is shown.

    def _find(self, request: Request) -> ServingRuntime | ClusterServingRuntime | None:
        if request.namespace:
            return self.namespaced_runtimes.get(request.name, request.namespace)
        return None if self.cluster_runtimes is None else self.cluster_runtimes.get(request.name)

    def _wanted(self, runtime: ServingRuntime | ClusterServingRuntime, shown: JSON) -> JSON:
        if not runtime.spec.multi_model:
            return runtime_status.cleared(shown)
        summary = _NOTHING if runtime.spec.disabled else self._summary(runtime, shown)
        return runtime_status.fields(summary, shown, runtime.metadata.generation, self.now())

    def _summary(self, runtime: ServingRuntime | ClusterServingRuntime, shown: JSON) -> Summary:
        problems = [
            *runtime_validation.problems(runtime.spec, self.configuration().built_in_server_types),
            *runtime_validation.autoscaling_problems(runtime.metadata.annotations, runtime.spec),
        ]
        namespaces = [runtime.namespace] if runtime.namespace else self.scope.all_enabled()
        places = [
            self._local(runtime, namespace, shown)
            for namespace in namespaces
            if self.scope.enabled(namespace) and self._counts(runtime, namespace)
        ]
        cluster = not runtime.namespace
        return runtime_status.summarize(places, runtime_validation.sentence(problems), cluster=cluster)

    def _counts(self, runtime: ServingRuntime | ClusterServingRuntime, namespace: str) -> bool:
        """Whether no other runtime of the same name stands before it in a namespace."""
        found = self.runtimes(namespace).get(runtime.name)
        return found is not None and found.namespace == runtime.namespace

    def _local(self, runtime: ServingRuntime | ClusterServingRuntime, namespace: str, shown: JSON) -> Local:
        def is_its(deployment: Deployment) -> bool:
            owner = controller_of(deployment)
            return owner is not None and (owner.kind, owner.name) == (runtime.kind, runtime.name)

        place = Request(namespace, runtime.name)
        refusal = self.refusals.get(place, "")
        if place not in self.refusals.judged and runtime.namespace:
            refusal = runtime_status.refusal(shown, runtime.metadata.generation)
        records = self.instances(namespace)
        return Local(
            namespace=namespace,
            deployment=next(filter(is_its, self.deployments.list(namespace)), None),
            refusal=refusal,
            instances=None if records is None else runtime_status.instances_of(runtime.name, records),
        )

    def _pause(self, request: Request, shown: JSON, wanted: JSON) -> float:
        """Seconds to wait before a write that only tells of models and memory."""
        others = (shown.keys() | wanted.keys()) - _NUMBERS
        if not _same(shown, wanted, others) or _NUMBERS.isdisjoint(shown):
            return 0
        return self._written.get(request, float("-inf")) + _PAUSE_S - self.clock()


def _same(one: JSON, other: JSON, names: Iterable[str]) -> bool:
    return all(one.get(name) == other.get(name) for name in names)

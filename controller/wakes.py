"""Who is to be reconciled when something changes: from a changed object to requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from api.meta import KubeObject
from controller import labels
from controller.demand import model_of
from controller.mesh_client import ready_addresses
from controller.reconcilers.servingruntime import RUNTIME_KINDS
from controller.runtime.controller import controller_of
from controller.runtime.reconcile import Request
from controller.runtimes import Catalog
from controller.status import State, Transition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from api.core import Endpoints
    from api.v1alpha1 import ClusterServingRuntime, ServingRuntime
    from controller.model_kinds import ModelKind
    from controller.runtime.informer import Lister
    from controller.scope import Scope
    from controller.status import ModelStatus

T = TypeVar("T", bound=KubeObject)


@dataclass(frozen=True, slots=True)
class RuntimeWakes:
    """Wakes runtimes; a request is one runtime in one namespace.

    Attributes:
        scope: the served namespaces.
        runtimes: returns the runtimes of a namespace, by name, whether it is served or not.
        rest: tells whether REST is on.
    """

    scope: Scope
    runtimes: Callable[[str], Mapping[str, ServingRuntime | ClusterServingRuntime]]
    rest: Callable[[], bool]

    def owner(self, obj: KubeObject) -> Iterator[Request]:
        """The runtime of a Deployment or an autoscaler."""
        owner = controller_of(obj)
        if owner is not None and owner.kind in RUNTIME_KINDS:
            yield Request(obj.namespace, owner.name)

    def in_namespace(self, obj: KubeObject) -> Iterator[Request]:
        """All runtimes of the object's namespace; of the namespace, where it is one."""
        namespace = obj.namespace or obj.name
        for name in self.runtimes(namespace):
            yield Request(namespace, name)

    def all(self, _: KubeObject) -> Iterator[Request]:
        """All runtimes of all served namespaces."""
        for namespace in self.scope.all_enabled():
            for name in self.runtimes(namespace):
                yield Request(namespace, name)

    def everywhere(self, runtime: ClusterServingRuntime) -> Iterator[Request]:
        """A cluster's runtime in each served namespace."""
        for namespace in self.scope.all_enabled():
            yield Request(namespace, runtime.name)

    def supporting(self, kind: ModelKind[T]) -> Callable[[T], Iterator[Request]]:
        """The runtimes that can load an object's model."""

        def enqueue(obj: T) -> Iterator[Request]:
            model = model_of(kind, obj)
            if model is None:
                return
            found = self.runtimes(obj.namespace)
            specs = {name: runtime.spec for name, runtime in found.items() if runtime.spec.multi_model}
            for name in Catalog(specs, rest=self.rest()).supporting(model):
                yield Request(obj.namespace, name)

        return enqueue


@dataclass(frozen=True, slots=True)
class NamespaceWakes:
    """Wakes namespaces; a request has no name.

    Attributes:
        scope: the served namespaces.
    """

    scope: Scope

    @staticmethod
    def of(obj: KubeObject) -> Iterator[Request]:
        """The namespace of an object; the namespace itself, where it is one."""
        yield Request(obj.namespace or obj.name, "")

    def all(self, _: KubeObject) -> Iterator[Request]:
        """All served namespaces."""
        for namespace in self.scope.all_enabled():
            yield Request(namespace, "")


@dataclass(frozen=True, slots=True)
class ModelWakes:
    """Wakes the objects of one kind.

    Attributes:
        kind: which.
        objects: the cache of that kind.
        scope: the served namespaces.
        catalog: returns the runtimes of a namespace.
        reachable: tells whether a namespace's mesh has a ready pod.
    """

    kind: ModelKind[Any]
    objects: Lister[Any]
    scope: Scope
    catalog: Callable[[str], Catalog]
    reachable: Callable[[str], bool]

    def all(self, _: KubeObject) -> Iterator[Request]:
        """All objects of all served namespaces."""
        for namespace in self.scope.all_enabled():
            yield from self._matching(namespace, lambda _: True)

    def within(self, namespace: KubeObject) -> Iterator[Request]:
        """All objects of a namespace, which may have been enabled or disabled."""
        return self._matching(namespace.name, lambda _: True)

    def beside_pods(self, endpoints: Endpoints) -> Iterator[Request]:
        """The objects in a namespace whose pods changed that do not serve what they ask for, or no longer.

        Without a pod nobody tells what became of a model in memory; with one, the mesh does.
        """
        reachable = self.reachable(endpoints.namespace)

        def concerned(obj: Any) -> bool:
            status = self._status(obj)
            return not _settled(status) or (status.active is State.LOADED and not reachable)

        return self._matching(endpoints.namespace, concerned)

    def beside_runtime(self, runtime: KubeObject) -> Iterator[Request]:
        """The objects in a runtime's namespace that are not served, or that no runtime supports any more."""
        return self._unserved(runtime.namespace)

    def unserved(self, _: KubeObject) -> Iterator[Request]:
        """Such objects of all served namespaces."""
        for namespace in self.scope.all_enabled():
            yield from self._unserved(namespace)

    def _unserved(self, namespace: str) -> Iterator[Request]:
        supported = self._supported_in(namespace)
        return self._matching(namespace, lambda obj: not _settled(self._status(obj)) or not supported(obj))

    def _status(self, obj: KubeObject) -> ModelStatus:
        return self.kind.fields.read({"status": obj.dump().get("status")})

    def _supported_in(self, namespace: str) -> Callable[[Any], bool]:
        """Returns what tells whether a runtime supports an object's model; models are many and types few."""
        catalog, known = self.catalog(namespace), dict[str, bool]()

        def supported(obj: Any) -> bool:
            if (model := model_of(self.kind, obj)) is None:
                return False
            type_ = labels.model_type(model)
            if type_ not in known:
                known[type_] = bool(catalog.supporting(model))
            return known[type_]

        return supported

    def _matching(self, namespace: str, predicate: Callable[[Any], bool]) -> Iterator[Request]:
        for obj in self.objects.list(namespace):
            if self.kind.is_ours(obj) and predicate(obj):
                yield Request(obj.namespace, obj.name)


def _settled(status: ModelStatus) -> bool:
    serves = status.active in {State.LOADED, State.STANDBY} and status.transition is Transition.UP_TO_DATE
    return serves and status.available and status.failure is None


def addresses_changed(old: Endpoints | None, new: Endpoints | None) -> bool:
    """Tells whether the ready mesh instances behind a Service changed."""
    return ready_addresses(old, "grpc") != ready_addresses(new, "grpc")


def exists_otherwise(old: KubeObject | None, new: KubeObject | None) -> bool:
    """Tells whether an object came or went."""
    return (old is None) != (new is None)

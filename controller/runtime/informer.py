"""The typed, indexed copy of one kind of object, and the news about it.

Objects are parsed here, once per version, and everything behind this edge is typed. One object that does
not parse must not stop all others: it is logged with its key and reported. If an earlier version of it did
parse, that version stays, because dropping it would look like a deletion, and a controller would tear down
what runs.

Objects handed out are shared and must not be changed; take a copy (`model_copy(deep=True)` or `dump()`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import structlog

from api.meta import KubeObject
from controller.runtime.reflector import Reflector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from controller.runtime.client import JSON, Client

T = TypeVar("T", bound=KubeObject)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which objects of a type are of interest.

    Attributes:
        namespaces: only in these; None leaves it to the cache. Ignored for cluster-scoped types.
        label_selector: only those it selects.
        field_selector: only those it selects, such as `metadata.name=storage-config`.
    """

    namespaces: tuple[str, ...] | None = None
    label_selector: str = ""
    field_selector: str = ""


class Lister(Generic[T]):
    """Reads the copy. Nothing here waits or talks to the API server; what it returns may lag behind it."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[str, T]] = {}
        self._indexes: dict[str, _Index[T]] = {}

    def get(self, name: str, namespace: str = "") -> T | None:
        """Return one object, or None."""
        return self._objects.get(namespace, {}).get(name)

    def by_index(self, index: str, key: str) -> list[T]:
        """Return the objects that the index function named `index` put under `key`.

        Raises:
            KeyError: there is no such index; `Informer.add_index` makes one.
        """
        found = (self.get(name, namespace) for namespace, name in sorted(self._indexes[index].find(key)))
        return [obj for obj in found if obj is not None]

    def list(self, namespace: str | None = None) -> list[T]:
        """Return the objects of one namespace (empty: the cluster-scoped ones), or all."""
        if namespace is not None:
            return [*self._objects.get(namespace, {}).values()]
        return [obj for objects in self._objects.values() for obj in objects.values()]


class Informer(Lister[T]):
    """Keeps the copy of one type up to date and tells handlers of every change.

    Args:
        client: the API server.
        kind: the type; its RESOURCE is what is watched.
        scope: which objects; its `namespaces` None or empty stands for all.
        on_unparsable: called with the raw object and the error when one does not parse.
    """

    def __init__(
        self,
        client: Client,
        kind: type[T],
        scope: Scope = Scope(),
        *,
        on_unparsable: Callable[[JSON, ValueError], None] | None = None,
    ) -> None:
        super().__init__()
        self.kind = kind
        self._handlers: list[Callable[[T | None, T | None], None]] = []
        self.unparsable: dict[tuple[str, str], str] = {}
        """Why an object's present version cannot be read, by namespace and name."""
        self._on_unparsable = on_unparsable
        namespaces = scope.namespaces if kind.RESOURCE.namespaced else None
        self._reflectors = [
            Reflector(
                client,
                kind.RESOURCE,
                self,
                namespace=namespace,
                label_selector=scope.label_selector,
                field_selector=scope.field_selector,
            )
            for namespace in namespaces or ("",)
        ]
        self._unsynced = set(namespaces or ("",))
        self._synced = asyncio.Event()

    @property
    def has_synced(self) -> bool:
        """Whether a whole list of every namespace has been seen."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Return when a whole list of every namespace has been seen."""
        await self._synced.wait()

    async def run(self) -> None:
        """Keep the copy up to date until cancelled."""
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run())

    def add_handler(self, handler: Callable[[T | None, T | None], None]) -> None:
        """Call `handler(old, new)` for every change; old is None for new objects, new for deleted ones.

        Objects that are there already are reported as new, now. Handlers must be quick and not raise.
        """
        self._handlers.append(handler)
        for obj in self.list():
            handler(None, obj)

    def add_index(self, name: str, function: Callable[[T], Iterable[str]]) -> None:
        """Make objects findable with `by_index` by the keys that `function` gives them."""
        if name in self._indexes:
            return
        self._indexes[name] = index = _Index(function)
        for obj in self.list():
            index.update(None, obj)

    # The reflector's side (`reflector.Sink`).

    def upsert(self, obj: JSON) -> None:
        """See a version of an object."""
        metadata = obj["metadata"]
        namespace, name = metadata.get("namespace") or "", metadata["name"]
        old = self.get(name, namespace)
        if old is not None and old.metadata.resource_version == metadata.get("resourceVersion"):
            return
        try:
            new = self.kind.parse(_without_managed_fields(obj))
        except ValueError as error:
            _log.error(
                "cannot read object; skipping it",
                kind=self.kind.RESOURCE.kind,
                namespace=namespace,
                name=name,
                error=str(error),
            )
            if self._on_unparsable is not None:
                self._on_unparsable(obj, error)
            self.unparsable[namespace, name] = str(error)
            return
        self.unparsable.pop((namespace, name), None)
        self._objects.setdefault(namespace, {})[name] = new
        self._tell(old, new)

    def delete(self, namespace: str, name: str) -> None:
        """See that an object is gone."""
        self.unparsable.pop((namespace, name), None)
        objects = self._objects.get(namespace, {})
        old = objects.pop(name, None)
        if old is None:
            return
        if not objects:
            del self._objects[namespace]
        self._tell(old, None)

    def keys(self, namespace: str) -> set[tuple[str, str]]:
        """Return the keys of one namespace, or all."""
        held = {(space, name) for space, objects in self._objects.items() for name in objects}
        return {key for key in held | self.unparsable.keys() if not namespace or key[0] == namespace}

    def synced(self, namespace: str) -> None:
        """See that the copy of a namespace is whole."""
        self._unsynced.discard(namespace)
        if not self._unsynced:
            self._synced.set()

    def _tell(self, old: T | None, new: T | None) -> None:
        for index in self._indexes.values():
            index.update(old, new)
        for handler in self._handlers:
            handler(old, new)


class _Index(Generic[T]):
    """Keys of objects by the index keys a function gives them."""

    def __init__(self, function: Callable[[T], Iterable[str]]) -> None:
        self._function = function
        self._found: dict[str, set[tuple[str, str]]] = {}

    def find(self, key: str) -> Iterable[tuple[str, str]]:
        return self._found.get(key, ())

    def update(self, old: T | None, new: T | None) -> None:
        if old is not None:
            for key in self._function(old):
                found = self._found.get(key, set())
                found.discard((old.namespace, old.name))
                if not found:
                    self._found.pop(key, None)
        if new is not None:
            for key in self._function(new):
                self._found.setdefault(key, set()).add((new.namespace, new.name))


def _without_managed_fields(obj: JSON) -> JSON:
    """Drop what takes half of an object's memory and no reconciler reads."""
    metadata: dict[str, Any] = obj["metadata"]
    if "managedFields" not in metadata:
        return obj
    return obj | {"metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}

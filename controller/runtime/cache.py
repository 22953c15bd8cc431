"""One informer per type and scope, shared by all controllers of a process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from api.meta import KubeObject
from controller.runtime.informer import Informer, Lister, Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from controller.runtime.client import JSON, Client

T = TypeVar("T", bound=KubeObject)


class Cache:
    """Typed copies of what the API server holds.

    Informers are made when first asked for, and run from then on, or from when the cache does.

    Args:
        client: the API server.
        namespaces: what "all" means for namespaced types; None is the whole cluster.
        on_unparsable: called with the type, the raw object and the error when one does not parse.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespaces: Sequence[str] | None = None,
        on_unparsable: Callable[[type[KubeObject], JSON, ValueError], None] | None = None,
    ) -> None:
        self._client = client
        self._namespaces = tuple(namespaces) if namespaces else None
        self._on_unparsable = on_unparsable
        self._informers: dict[tuple[type[KubeObject], Scope], Informer[Any]] = {}
        self._group: asyncio.TaskGroup | None = None

    def informer(self, kind: type[T], scope: Scope = Scope()) -> Informer[T]:  # noqa: B008 -- immutable
        """Return the informer of a type, the same one for the same scope."""
        if scope.namespaces is None:
            scope = Scope(self._namespaces, scope.label_selector, scope.field_selector)
        informer = self._informers.get((kind, scope))
        if informer is None:
            informer = Informer(self._client, kind, scope, on_unparsable=self._reporter(kind))
            self._informers[kind, scope] = informer
            if self._group is not None:
                self._group.create_task(informer.run())
        return informer

    def lister(self, kind: type[T], scope: Scope = Scope()) -> Lister[T]:  # noqa: B008 -- immutable
        """Return what reads the copy of a type, and have it kept."""
        return self.informer(kind, scope)

    @property
    def has_synced(self) -> bool:
        """Whether every informer has seen a whole list."""
        return all(informer.has_synced for informer in self._informers.values())

    async def wait_synced(self) -> None:
        """Return when every informer there is has seen a whole list."""
        for informer in list(self._informers.values()):
            await informer.wait_synced()

    async def run(self) -> None:
        """Keep the copies up to date until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            for informer in self._informers.values():
                self._group.create_task(informer.run())
            await asyncio.Event().wait()

    def _reporter(self, kind: type[KubeObject]) -> Callable[[JSON, ValueError], None] | None:
        report = self._on_unparsable
        return None if report is None else lambda raw, error: report(kind, raw, error)

"""Which namespaces the controller serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from api.core import Namespace

ENABLED_LABEL = "modelmesh-enabled"


class Namespaces(Protocol):
    """Finds namespaces; the cache's lister is one."""

    def get(self, name: str, namespace: str = "") -> Namespace | None:
        """Returns one, or None."""
        ...

    def list(self, namespace: str | None = None) -> list[Namespace]:
        """Returns all."""
        ...


@dataclass(frozen=True, slots=True)
class Scope:
    """The served namespaces.

    Attributes:
        own: the controller's namespace.
        namespaces: all of the cluster; None in namespace scope, where only the own one is served.
    """

    own: str
    namespaces: Namespaces | None = None

    def enabled(self, name: str) -> bool:
        """Tells whether a namespace is served."""
        if self.namespaces is None:
            return name == self.own
        found = self.namespaces.get(name)
        if found is None or found.metadata.deletion_timestamp or found.status.get("phase") == "Terminating":
            return False
        return found.metadata.labels.get(ENABLED_LABEL, str(name == self.own).lower()) == "true"

    def all_enabled(self) -> list[str]:
        """Returns the served namespaces."""
        if self.namespaces is None:
            return [self.own]
        return sorted(found.name for found in self.namespaces.list() if self.enabled(found.name))

    def root_prefix(self, name: str) -> str:
        """Returns what comes before a namespace's keys in the store."""
        return "" if name == self.own else f"/mm_ns/{name}"


def switched(old: Namespace | None, new: Namespace | None) -> bool:
    """Tells whether a change of a namespace may have enabled or disabled it."""
    return _switches(old) != _switches(new)


def _switches(namespace: Namespace | None) -> tuple[Any, ...]:
    if namespace is None:
        return ()
    label = namespace.metadata.labels.get(ENABLED_LABEL)
    return label, namespace.metadata.deletion_timestamp, namespace.status.get("phase")

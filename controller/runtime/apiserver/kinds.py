"""What the server knows about a resource it serves, and the registry of all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from controller.runtime.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from api.resource import Resource
    from controller.runtime.apiserver.schema import Cause
    from controller.runtime.client import JSON

METADATA_FIELDS: Final = frozenset({"metadata.name", "metadata.namespace"})
"""Field selectors every kind supports."""


class Column(NamedTuple):
    """One column of a table. `cell` gets the object and the present time; priority 1 is for `-o wide`."""

    name: str
    cell: Callable[[JSON, datetime], Any]
    type: str = "string"
    priority: int = 0
    description: str = ""
    format: str = ""


class ScalePaths(NamedTuple):
    """Where a kind keeps what the `scale` subresource shows, as keys below the object."""

    replicas: tuple[str, ...] = ("spec", "replicas")
    status_replicas: tuple[str, ...] = ("status", "replicas")
    selector: tuple[str, ...] = ("spec", "selector")


def _nothing(_obj: JSON) -> None:
    """Leave the object alone."""


def _no_causes(_obj: JSON, _old: JSON | None) -> tuple[Cause, ...]:
    return ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedKind:
    """A served resource.

    Attributes:
        resource: its names.
        singular: lower-case singular, as `kubectl` accepts it.
        short_names: abbreviations, such as `isvc`.
        categories: groups such as `all`.
        has_status: whether `status` is a subresource of its own.
        scale: paths of the `scale` subresource; None: there is none.
        schema: structural schema of a custom resource; None for a built-in kind, which `api.schema` defines.
        columns: columns of its table after the name.
        selectable: paths a field selector may use.
        prepare: fills in, in place, what the API server gives a new or changed object of the kind.
        check: rules beyond the schema: gets the new object and the old one, yields what is wrong.
        graceful: whether deletion waits for the owner of the object (a pod's kubelet) to finish.
    """

    resource: Resource
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    has_status: bool = False
    scale: ScalePaths | None = None
    schema: JSON | None = None
    columns: tuple[Column, ...] = ()
    selectable: frozenset[str] = METADATA_FIELDS
    prepare: Callable[[JSON], None] = _nothing
    check: Callable[[JSON, JSON | None], Iterable[Cause]] = _no_causes
    graceful: Callable[[JSON], bool] = field(default=lambda _obj: False)

    @property
    def custom(self) -> bool:
        """Whether a CustomResourceDefinition defines it."""
        return self.schema is not None

    @property
    def generations(self) -> bool:
        """Whether a change of what is desired counts up `metadata.generation`."""
        return self.custom or self.scale is not None

    @property
    def storage_key(self) -> tuple[str, str]:
        """Key of the objects in the store, the same for all versions."""
        return self.resource.group, self.resource.plural


class Registry:
    """The served kinds by group, version and plural."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str, str], ServedKind] = {}

    def add(self, kind: ServedKind) -> None:
        """Serve `kind`, in place of an earlier definition of the same resource."""
        resource = kind.resource
        self._kinds[resource.group, resource.version, resource.plural] = kind

    def remove_all(self, group: str, plural: str) -> None:
        """Serve no version of the resource any longer."""
        for key in [key for key in self._kinds if (key[0], key[2]) == (group, plural)]:
            del self._kinds[key]

    def find(self, group: str, version: str, plural: str) -> ServedKind:
        """Return the served kind; a 404 when nothing is served there, as for an unknown URL."""
        try:
            return self._kinds[group, version, plural]
        except KeyError:
            raise NotFound(
                "the server could not find the requested resource",
                details={"group": group, "kind": plural},
            ) from None

    def __iter__(self) -> Iterator[ServedKind]:
        return iter(self._kinds.values())

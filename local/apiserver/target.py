"""What a URL of the API stands for: a resource, perhaps one object, perhaps a subresource of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from controller.runtime.errors import NotFound

if TYPE_CHECKING:
    from controller.runtime.apiserver import Core, ServedKind

_OF_NAMESPACE: Final = frozenset({"status", "finalize"})
"""Subresources of a Namespace, which look like resources within it."""
_MAX_PARTS: Final = 3


class Target(NamedTuple):
    """Parsed path. An empty name stands for the collection."""

    kind: ServedKind
    namespace: str
    name: str
    subresource: str


def parse(core: Core, group: str, version: str, path: str) -> Target:
    """Parse what follows `/api/v1/` or `/apis/GROUP/VERSION/`; NotFound when nothing is served there."""
    parts = path.strip("/").split("/")
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in _OF_NAMESPACE:  # noqa: PLR2004
        namespace, parts = parts[1], parts[2:]
    plural, name, subresource = (*parts, "", "")[:_MAX_PARTS]
    kind = core.kinds.find(group, version, plural)
    needs_namespace = kind.resource.namespaced and bool(name)
    if len(parts) > _MAX_PARTS or needs_namespace != bool(namespace and name):
        raise NotFound("the server could not find the requested resource", details={"kind": plural})
    return Target(kind, namespace, name, subresource)

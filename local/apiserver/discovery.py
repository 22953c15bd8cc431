"""Discovery documents: which groups, versions and resources there are."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controller.runtime.apiserver import Core, ServedKind
    from controller.runtime.client import JSON

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_SUBRESOURCE_VERBS = ["get", "patch", "update"]
_SCALE = {"group": "autoscaling", "version": "v1", "kind": "Scale"}


def core_versions(address: str) -> JSON:
    """Return the answer to `/api`; `address` is the server's host and port."""
    addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses}


def group_list(core: Core) -> JSON:
    """Return the answer to `/apis`."""
    groups = [_group(name, list(kinds)) for name, kinds in _by_group(core) if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(core: Core, name: str) -> JSON | None:
    """Return the answer to `/apis/NAME`, None when there is no such group."""
    kinds = [kind for kind in core.kinds if kind.resource.group == name]
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, kinds)} if kinds else None


def resource_list(core: Core, name: str, version: str) -> JSON | None:
    """Return the answer to `/apis/NAME/VERSION` or `/api/v1`, None when it is not served."""
    kinds = [kind for kind in core.kinds if (kind.resource.group, kind.resource.version) == (name, version)]
    if not kinds:
        return None
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": kinds[0].resource.api_version,
        "resources": [entry for kind in kinds for entry in _resources(kind)],
    }


def aggregated(core: Core, *, legacy: bool) -> JSON:
    """Return everything below `/api` (`legacy`) or `/apis` in one document, as newer clients ask for it."""
    items = [
        {
            "metadata": {"name": name} if name else {},
            "versions": [_version(version, list(kinds)) for version, kinds in _by_version(all_kinds)],
        }
        for name, all_kinds in _by_group(core)
        if legacy == (not name)
    ]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _by_group(core: Core) -> Iterable[tuple[str, Iterable[ServedKind]]]:
    kinds = sorted(core.kinds, key=lambda kind: kind.resource.group)
    return groupby(kinds, key=lambda kind: kind.resource.group)


def _by_version(kinds: Iterable[ServedKind]) -> Iterable[tuple[str, Iterable[ServedKind]]]:
    """Group by version, the most stable and newest first, which is the one clients prefer."""
    ordered = sorted(kinds, key=lambda kind: _preference(kind.resource.version))
    return groupby(ordered, key=lambda kind: kind.resource.version)


def _preference(version: str) -> tuple[int, str]:
    stability = 2 if "alpha" in version else 1 if "beta" in version else 0
    return stability, version


def _group(name: str, kinds: list[ServedKind]) -> JSON:
    versions = [
        {"groupVersion": f"{name}/{version}", "version": version} for version, _ in _by_version(kinds)
    ]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def _resources(kind: ServedKind) -> Iterable[JSON]:
    resource = kind.resource
    entry: JSON = {
        "name": resource.plural,
        "singularName": kind.singular or resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": _VERBS,
    }
    if kind.short_names:
        entry["shortNames"] = list(kind.short_names)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    yield entry
    for name, scope in _subresources(kind).items():
        yield {
            "name": f"{resource.plural}/{name}",
            "singularName": "",
            "namespaced": resource.namespaced,
            **({"kind": resource.kind} if scope is None else scope),
            "verbs": ["get"] if name == "log" else _SUBRESOURCE_VERBS,
        }


def _subresources(kind: ServedKind) -> dict[str, JSON | None]:
    """Return the subresources by name; the value is another kind that one speaks."""
    found: dict[str, JSON | None] = {}
    if kind.has_status:
        found["status"] = None
    if kind.scale:
        found["scale"] = dict(_SCALE)
    if kind.resource.plural == "pods" and not kind.resource.group:
        found["log"] = None
    return found


def _version(version: str, kinds: list[ServedKind]) -> JSON:
    return {"version": version, "freshness": "Current", "resources": [_aggregated(kind) for kind in kinds]}


def _aggregated(kind: ServedKind) -> JSON:
    resource = kind.resource
    own = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    return {
        "resource": resource.plural,
        "responseKind": own,
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": kind.singular or resource.kind.lower(),
        "verbs": _VERBS,
        **({"shortNames": list(kind.short_names)} if kind.short_names else {}),
        **({"categories": list(kind.categories)} if kind.categories else {}),
        "subresources": [
            {
                "subresource": name,
                "responseKind": scope or own,
                "verbs": ["get"] if name == "log" else _SUBRESOURCE_VERBS,
            }
            for name, scope in _subresources(kind).items()
        ],
    }

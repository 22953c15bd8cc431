"""What is in a cluster, to tell what an uninstall has left."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fvt.cluster import Cluster

_BY_THEMSELVES = {
    "componentstatuses",
    "endpoints",
    "endpointslices.discovery.k8s.io",
    "events",
    "events.events.k8s.io",
    "leases.coordination.k8s.io",
    "nodes",
    "persistentvolumes",
    "podmetrics.metrics.k8s.io",
    "nodemetrics.metrics.k8s.io",
}
"""Kinds that come and go without anybody's doing."""
_SYSTEM = ("kube-system/", "local-path-storage/", "kube-node-lease/", "kube-public/")


def inventory(cluster: Cluster) -> set[str]:
    """Return `kind namespace/name` of every object but those that the cluster itself makes and removes."""
    listed = cluster.kubectl("api-resources", "--verbs=list", "--output=name", "--cached=false").split()
    kinds = [kind for kind in listed if kind not in _BY_THEMSELVES]
    template = '{range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name}{"\\n"}{end}'
    lines = cluster.kubectl(
        "get", ",".join(kinds), "--all-namespaces", "--ignore-not-found", f"--output=jsonpath={template}"
    ).splitlines()
    return {line for line in lines if line and not line.partition(" ")[2].startswith(_SYSTEM)}

"""The ServiceMonitor of a mesh, where the Prometheus operator is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from api.monitoring import SERVICE_MONITOR, ServiceMonitor
from controller import marks
from controller.runtime.apply import ensure
from controller.runtime.errors import NotFound

if TYPE_CHECKING:
    from controller.config import Configuration
    from controller.runtime.client import Client
    from controller.runtime.informer import Lister

JSON = dict[str, Any]

NAME = "modelmesh-metrics-monitor"
_INTERVAL = "30s"


def build(configuration: Configuration, service: JSON) -> JSON:
    """Builds it for a Service as the API server holds it."""
    metadata = service["metadata"]
    return {
        "apiVersion": SERVICE_MONITOR.api_version,
        "kind": SERVICE_MONITOR.kind,
        "metadata": {
            "name": NAME,
            "namespace": metadata["namespace"],
            "labels": metadata["labels"],
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                },
            ],
        },
        "spec": {
            "selector": {"matchLabels": {marks.SERVICE: metadata["name"]}},
            "namespaceSelector": {"matchNames": [metadata["namespace"]]},
            "endpoints": [
                {
                    "port": "prometheus",
                    "interval": _INTERVAL,
                    "scheme": configuration.metrics.scheme,
                    "tlsConfig": {"insecureSkipVerify": True},
                },
            ],
        },
    }


async def reconcile(
    client: Client,
    monitors: Lister[ServiceMonitor],
    configuration: Configuration,
    service: JSON,
) -> None:
    """Makes the Service's mesh be scraped, or not where metrics or the operator's support are off."""
    live = monitors.get(NAME, service["metadata"]["namespace"])
    metrics = configuration.metrics
    if metrics.enabled and not metrics.disable_prometheus_operator_support:
        await ensure(client, SERVICE_MONITOR, build(configuration, service), live=live)
    elif live is not None:
        try:
            await client.delete(SERVICE_MONITOR, live.name, live.namespace)
        except NotFound:
            return

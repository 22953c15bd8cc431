"""The ServiceMonitor of a mesh, where the Prometheus operator is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from api.monitoring import SERVICE_MONITOR, ServiceMonitor
from controller import marks
from controller.runtime.apply import ensure, ensure_absent

if TYPE_CHECKING:
    from api.core import Service
    from controller.config import Configuration
    from controller.runtime.client import Client
    from controller.runtime.informer import Lister

JSON = dict[str, Any]

NAME = "modelmesh-metrics-monitor"
_INTERVAL = "30s"


def build(configuration: Configuration, service: Service) -> JSON:
    """Builds it for a Service as the API server holds it."""
    return {
        "apiVersion": SERVICE_MONITOR.api_version,
        "kind": SERVICE_MONITOR.kind,
        "metadata": {
            "name": NAME,
            "namespace": service.namespace,
            "labels": service.metadata.labels,
            "ownerReferences": [service.owner_reference().dump()],
        },
        "spec": {
            "selector": {"matchLabels": {marks.SERVICE: service.name}},
            "namespaceSelector": {"matchNames": [service.namespace]},
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
    service: Service,
) -> None:
    """Makes the Service's mesh be scraped, or not where metrics or the operator's support are off."""
    live = monitors.get(NAME, service.namespace)
    metrics = configuration.metrics
    if metrics.enabled and not metrics.disable_prometheus_operator_support:
        await ensure(client, SERVICE_MONITOR, build(configuration, service), live=live)
    elif live is not None:
        await ensure_absent(client, live)

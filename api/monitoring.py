"""The slice of the Prometheus operator's API (`monitoring.coreos.com/v1`) that we write."""

from typing import ClassVar

from pydantic import Field

from api.meta import JSON, KubeObject
from api.resource import Resource

SERVICE_MONITOR = Resource("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors")


class ServiceMonitor(KubeObject):
    """Tells Prometheus which Services to scrape."""

    RESOURCE: ClassVar[Resource] = SERVICE_MONITOR

    spec: JSON = Field(default_factory=dict)

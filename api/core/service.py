"""Services and the addresses behind them (`v1`)."""

from typing import ClassVar

from pydantic import Field

from api.meta import JSON, IntOrString, KubeObject, Model
from api.resource import Resource

SERVICE = Resource("", "v1", "Service", "services")
ENDPOINTS = Resource("", "v1", "Endpoints", "endpoints")


class ServicePort(Model):
    """A port of a Service and where it leads."""

    port: int
    name: str | None = None
    protocol: str | None = None
    target_port: IntOrString | None = None
    node_port: int | None = None
    app_protocol: str | None = None


class ServiceSpec(Model):
    """A stable name for the pods that a selector picks. `cluster_ip` is `None` (the string) when headless."""

    selector: dict[str, str] = Field(default_factory=dict)
    ports: list[ServicePort] = Field(default_factory=list)
    cluster_ip: str | None = None
    cluster_ips: list[str] | None = None
    type: str | None = None
    publish_not_ready_addresses: bool | None = None


class Service(KubeObject):
    """A stable name for a set of pods."""

    RESOURCE: ClassVar[Resource] = SERVICE

    spec: ServiceSpec = Field(default_factory=ServiceSpec)
    status: JSON = Field(default_factory=dict)


class ObjectReference(Model):
    """Another object, by kind and name."""

    api_version: str | None = None
    kind: str | None = None
    name: str = ""
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    field_path: str | None = None


class EndpointAddress(Model):
    """One pod's address."""

    ip: str
    hostname: str | None = None
    node_name: str | None = None
    target_ref: ObjectReference | None = None


class EndpointPort(Model):
    """A port that all addresses of a subset have."""

    port: int
    name: str | None = None
    protocol: str | None = None
    app_protocol: str | None = None


class EndpointSubset(Model):
    """Addresses that share ports, split by readiness."""

    addresses: list[EndpointAddress] = Field(default_factory=list)
    not_ready_addresses: list[EndpointAddress] = Field(default_factory=list)
    ports: list[EndpointPort] = Field(default_factory=list)


class Endpoints(KubeObject):
    """The addresses behind a Service."""

    RESOURCE: ClassVar[Resource] = ENDPOINTS

    subsets: list[EndpointSubset] = Field(default_factory=list)

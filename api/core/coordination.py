"""Leases (`coordination.k8s.io/v1`), for leader election."""

from typing import ClassVar

from pydantic import Field

from api.meta import KubeObject, Model
from api.resource import Resource

LEASE = Resource("coordination.k8s.io", "v1", "Lease", "leases")


class LeaseSpec(Model):
    """Who holds the lease and since when. Times are RFC 3339 strings with microseconds."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    lease_transitions: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None


class Lease(KubeObject):
    """A claim that must be renewed."""

    RESOURCE: ClassVar[Resource] = LEASE

    spec: LeaseSpec = Field(default_factory=LeaseSpec)

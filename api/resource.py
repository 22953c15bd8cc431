"""Names of a Kubernetes resource: what a client needs to build its URL and what an object says it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of the Kubernetes API, for example `Resource("apps", "v1", "Deployment", "deployments")`.

    Attributes:
        group: API group; empty for the core group.
        version: API version within the group.
        kind: value of the field `kind` of its objects.
        plural: lower-case plural, as in URLs.
        namespaced: whether its objects live in namespaces.
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Value of the field `apiVersion`: `v1` or `serving.kserve.io/v1beta1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

"""The coordinates of a Kubernetes resource. Imports nothing, so that clients can use it without pydantic."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resource:
    """Where objects of one kind live in the API: enough to build a URL path and to label an object.

    Attributes:
        group: API group; empty for the core group.
        version: version within the group, such as `v1beta1`.
        kind: name of the type in manifests, such as `InferenceService`.
        plural: name in URLs, such as `inferenceservices`.
        namespaced: False for cluster-scoped kinds.
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """The manifest's `apiVersion`: `v1`, `serving.kserve.io/v1beta1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def list_kind(self) -> str:
        """Kind of a list of these objects."""
        return f"{self.kind}List"

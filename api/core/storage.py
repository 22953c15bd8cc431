"""Claims of storage (`v1`)."""

from typing import ClassVar

from pydantic import Field

from api.meta import JSON, KubeObject
from api.resource import Resource

PERSISTENT_VOLUME_CLAIM = Resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")


class PersistentVolumeClaim(KubeObject):
    """A claim of a volume that pods of its namespace can mount."""

    RESOURCE: ClassVar[Resource] = PERSISTENT_VOLUME_CLAIM

    spec: JSON = Field(default_factory=dict)
    status: JSON = Field(default_factory=dict)

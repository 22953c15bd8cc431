"""ConfigMaps, Secrets and Namespaces (`v1`)."""

from typing import ClassVar

from pydantic import Field

from api.meta import JSON, KubeObject
from api.resource import Resource

CONFIG_MAP = Resource("", "v1", "ConfigMap", "configmaps")
SECRET = Resource("", "v1", "Secret", "secrets")
NAMESPACE = Resource("", "v1", "Namespace", "namespaces", namespaced=False)


class ConfigMap(KubeObject):
    """Plain configuration. `binary_data` values are base64."""

    RESOURCE: ClassVar[Resource] = CONFIG_MAP

    data: dict[str, str] = Field(default_factory=dict)
    binary_data: dict[str, str] = Field(default_factory=dict)
    immutable: bool | None = None


class Secret(KubeObject):
    """Confidential configuration. `data` values are base64; `string_data` is plain and write-only."""

    RESOURCE: ClassVar[Resource] = SECRET

    type: str | None = None
    data: dict[str, str] = Field(default_factory=dict)
    string_data: dict[str, str] = Field(default_factory=dict)
    immutable: bool | None = None


class Namespace(KubeObject):
    """A scope for names."""

    RESOURCE: ClassVar[Resource] = NAMESPACE

    spec: JSON = Field(default_factory=dict)
    status: JSON = Field(default_factory=dict)

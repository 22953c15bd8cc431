"""The base of every Kubernetes object here: camelCase on the wire, snake_case in Python, nothing lost.

Fields we read are typed; fields we do not know are kept and written back, so an object that passes through
us keeps what newer clients or other controllers put there. Types are strict: a string where a number
belongs is an error that names the field.
"""

import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from api.resource import Resource
from api.rules import Rule

JSON = dict[str, Any]
Quantity = int | float | str
"""An amount such as `500m` or `1Gi`, as written by the user."""
IntOrString = int | str
"""A number or a name or percentage, such as a port."""

_ACRONYMS = {"ip": "IP", "ips": "IPs", "ipc": "IPC", "pid": "PID"}
_IRREGULAR = {
    "ca_certs": "CACerts",
    "container_id": "containerID",
    "image_id": "imageID",
    "open_apiv3_schema": "openAPIV3Schema",
    "resource_schema": "schema",
}


def camel_case(name: str) -> str:
    """The wire name of a Python field name, by Kubernetes' spelling: `host_ip` is `hostIP`."""
    if name in _IRREGULAR:
        return _IRREGULAR[name]
    head, *tail = name.split("_")
    return head + "".join(_ACRONYMS.get(word, word[:1].upper() + word[1:]) for word in tail)


class Model(BaseModel):
    """A typed slice of a JSON object. Unknown fields are kept."""

    model_config = ConfigDict(
        alias_generator=camel_case,
        extra="allow",
        strict=True,
        validate_by_alias=True,
        validate_by_name=True,
        protected_namespaces=(),
    )

    OPENAPI: ClassVar[str] = ""
    """Name of Kubernetes' own OpenAPI definition which a CRD uses for this type; empty for our own types."""

    ALWAYS: ClassVar[frozenset[str]] = frozenset()
    """Fields that `dump` writes even when they were never given, because a reader requires them."""

    RULES: ClassVar[tuple[Rule, ...]] = ()
    """What the API server checks beyond the types; `self` in them is the object of this type."""

    MAX_ITEMS: ClassVar[Mapping[str, int]] = {}
    """Bounds of lists by path, which a CRD needs for rules over them: `containers[].ports`."""

    MAX_LENGTH: ClassVar[Mapping[str, int]] = {}
    """Bounds of strings by path, in characters, which a CRD needs for rules that compare them."""

    @classmethod
    def parse(cls, raw: JSON) -> Self:
        """Read an object as decoded from JSON.

        Raises:
            pydantic.ValidationError: a field has the wrong type or a value outside its enumeration.
        """
        return cls.model_validate(raw)

    def dump(self) -> JSON:
        """The object as JSON values under wire names, without fields that are None or were never given."""
        given = self.__pydantic_fields_set__ | self.ALWAYS
        values = self.__dict__
        out: JSON = {}
        for name, alias, default in _fields(type(self)):
            value = values[name]
            if value is not None and (name in given or value != default):
                out[alias] = _plain(value)
        for name, value in (self.__pydantic_extra__ or {}).items():
            out[name] = _plain(value)
        return out


@functools.cache
def _fields(cls: type[Model]) -> tuple[tuple[str, str, Any], ...]:
    """Name, wire name and default of each field; the defaults are for comparison only."""
    return tuple(
        (name, field.alias or name, field.get_default(call_default_factory=True))
        for name, field in cls.model_fields.items()
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Model):
        return value.dump()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


class OwnerReference(Model):
    """Who an object is garbage-collected with."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(Model):
    """Identity and bookkeeping that every object carries. Times are RFC 3339 strings."""

    name: str = ""
    generate_name: str | None = None
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    owner_references: list[OwnerReference] = Field(default_factory=list)
    finalizers: list[str] = Field(default_factory=list)
    managed_fields: list[JSON] | None = None


class KubeObject(Model):
    """A whole object: what a manifest holds and the API server stores."""

    RESOURCE: ClassVar[Resource]

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)

    def model_post_init(self, context: Any, /) -> None:
        """Fill in the type, which items of a list leave out."""
        del context
        self.api_version = self.api_version or self.RESOURCE.api_version
        self.kind = self.kind or self.RESOURCE.kind

    @property
    def name(self) -> str:
        """`metadata.name`."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """`metadata.namespace`; empty for cluster-scoped objects."""
        return self.metadata.namespace

    def owner_reference(self) -> OwnerReference:
        """A reference that makes this object the controlling owner of another."""
        return OwnerReference(
            api_version=self.api_version,
            kind=self.kind,
            name=self.metadata.name,
            uid=self.metadata.uid,
            controller=True,
            block_owner_deletion=True,
        )

"""CustomResourceDefinitions (`apiextensions.k8s.io/v1`)."""

from typing import ClassVar, Literal

from pydantic import Field

from api.meta import JSON, KubeObject, Model
from api.resource import Resource

CRD = Resource(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)


class CustomResourceNames(Model):
    """What the new kind is called in manifests, URLs and commands."""

    kind: str
    plural: str
    singular: str = ""
    list_kind: str = ""
    short_names: list[str] = Field(default_factory=list)
    categories: list[str] = Field(default_factory=list)


class PrinterColumn(Model):
    """A column of `kubectl get`; a positive `priority` shows it only with `-o wide`."""

    name: str
    type: str
    json_path: str
    description: str | None = None
    format: str | None = None
    priority: int | None = None


class CustomResourceValidation(Model):
    """The structural schema of a version, as JSON schema."""

    open_apiv3_schema: JSON = Field(default_factory=dict)


class CustomResourceVersion(Model):
    """One version of the kind."""

    name: str
    served: bool
    storage: bool
    resource_schema: CustomResourceValidation
    subresources: JSON | None = None
    additional_printer_columns: list[PrinterColumn] = Field(default_factory=list)


class CustomResourceSpec(Model):
    """A kind of object that the API server shall serve."""

    group: str
    names: CustomResourceNames
    scope: Literal["Namespaced", "Cluster"]
    versions: list[CustomResourceVersion]


class CustomResourceDefinition(KubeObject):
    """Makes the API server serve a new kind."""

    RESOURCE: ClassVar[Resource] = CRD

    spec: CustomResourceSpec
    status: JSON = Field(default_factory=dict)

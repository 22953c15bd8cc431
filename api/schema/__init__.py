"""Kubernetes' own definitions of its built-in kinds and their parts: for our CRDs, and to check objects with.

`kubernetes.json` holds the definitions in `ROOTS` with all they refer to, taken without their prose from the
OpenAPI document of Kubernetes (`api/openapi-spec/swagger.json` of the version it names; Apache License 2.0,
Copyright The Kubernetes Authors). `python -m api.schema SWAGGER VERSION` takes them anew. It is read when
first asked for.

`structural` gives a definition for use in a CRD. Where a CRD must say things otherwise than OpenAPI does:

- quantities and int-or-string values carry the extension that the API server knows them by;
- the metadata of a claim template is the part of ObjectMeta that a template may set;
- a list keyed by name stays so only where Kubernetes refuses duplicates in a pod (`env`, `hostAliases` and
  `imagePullSecrets` allow them, and so did the original CRDs), and its keys are required or have a
  default;
- fields of Kubernetes 1.28 which the original CRDs accept and later versions dropped are still accepted.

`native` gives a definition as objects of the built-in kinds must fit it, that is, as kube-apiserver decodes
them:

- a quantity may be any number;
- in a status nothing is required: a field that is left out is its type's zero;
- lists are not keyed: which of them refuse duplicates is a rule of each kind.

`published` gives definitions as they are, for an OpenAPI document.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from api.resource import Resource

JSON = dict[str, Any]

CORE = "io.k8s.api.core.v1."
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"

ROOTS = (
    *(
        CORE + kind
        for kind in (
            "ConfigMap",
            "Endpoints",
            "Event",
            "Namespace",
            "Node",
            "PersistentVolumeClaim",
            "Pod",
            "Secret",
            "Service",
            "ServiceAccount",
        )
    ),
    "io.k8s.api.apps.v1.Deployment",
    "io.k8s.api.apps.v1.ReplicaSet",
    "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    "io.k8s.api.coordination.v1.Lease",
)
"""Definitions that `kubernetes.json` holds, with all they refer to."""

_NUMBER = r"(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
QUANTITY_PATTERN = rf"^(\+|-)?{_NUMBER}(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?{_NUMBER}))?$"
"""Syntax of a quantity, by the grammar in Kubernetes' documentation of the type."""

_ANY_OF = [{"type": "integer"}, {"type": "string"}]
_SPECIAL: dict[str, JSON] = {
    _INT_OR_STRING: {"anyOf": _ANY_OF, "x-kubernetes-int-or-string": True},
    _QUANTITY: {"anyOf": _ANY_OF, "pattern": QUANTITY_PATTERN, "x-kubernetes-int-or-string": True},
    _OBJECT_META: {
        "type": "object",
        "properties": {
            "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
            "finalizers": {"type": "array", "items": {"type": "string"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "name": {"type": "string"},
            "namespace": {"type": "string"},
        },
    },
}
_NATIVE: dict[str, JSON] = {
    _INT_OR_STRING: _SPECIAL[_INT_OR_STRING],
    _QUANTITY: {"anyOf": [{"type": "number"}, {"type": "string"}], "pattern": QUANTITY_PATTERN},
}
_STRING: JSON = {"type": "string"}
_OLDER_FIELDS: dict[str, JSON] = {
    CORE + "PodResourceClaim": {
        "source": {
            "type": "object",
            "properties": {"resourceClaimName": _STRING, "resourceClaimTemplateName": _STRING},
        }
    },
    CORE + "VolumeResourceRequirements": {
        "claims": {
            "type": "array",
            "items": {"type": "object", "properties": {"name": _STRING}, "required": ["name"]},
        }
    },
}
_DUPLICATES_ALLOWED = {"env", "hostAliases", "imagePullSecrets"}
_KEY_DEFAULTS = {"protocol": "TCP"}
_KEPT = {"type", "format", "required", "properties", "items", "additionalProperties", "x-kubernetes-map-type"}


def extract(swagger: JSON, version: str, roots: Iterable[str] = ROOTS) -> JSON:
    """The content of `kubernetes.json`: `roots` and all they refer to, without prose."""
    found = _closure(swagger["definitions"], roots)
    definitions = {name: _without_prose(schema) for name, schema in found.items()}
    return {
        "origin": f"https://github.com/kubernetes/kubernetes {version} api/openapi-spec/swagger.json",
        "license": "Apache-2.0, Copyright The Kubernetes Authors",
        "definitions": dict(sorted(definitions.items())),
    }


def _closure(definitions: JSON, roots: Iterable[str]) -> JSON:
    found: JSON = {}
    pending = list(roots)
    while pending:
        name = pending.pop()
        if name not in found:
            found[name] = definitions[name]
            pending.extend(_references(found[name]))
    return found


def _without_prose(schema: JSON) -> JSON:
    out = {key: value for key, value in schema.items() if key != "description"}
    if "properties" in out:
        out["properties"] = {name: _without_prose(value) for name, value in out["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in out:
            out[key] = _without_prose(out[key])
    return out


def _references(schema: JSON) -> list[str]:
    if "$ref" in schema:
        return [schema["$ref"].rpartition("/")[2]]
    parts = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    return [name for part in parts if part for name in _references(part)]


@functools.cache
def _definitions() -> JSON:
    document: JSON = json.loads(Path(__file__).with_name("kubernetes.json").read_text())
    definitions: JSON = document["definitions"]
    return definitions


def definition_of(resource: Resource) -> str:
    """The name of the definition of a built-in kind, empty when `kubernetes.json` does not hold it."""
    package = resource.group.removesuffix(".k8s.io") or "core"
    name = f"io.k8s.api.{package}.{resource.version}.{resource.kind}"
    return name if name in ROOTS else ""


def published(names: Iterable[str]) -> JSON:
    """Definitions and all they refer to, by name; references start with `#/definitions/`. Read only."""
    return _closure(_definitions(), names)


@functools.cache
def native(name: str, *, status: bool = False) -> JSON:
    """One of Kubernetes' definitions with everything it refers to in place, to check objects with.

    What is referred to is shared between all that refer to it: read only.

    Raises:
        KeyError: `kubernetes.json` does not hold the definition; add it to `ROOTS`.
    """
    return _NATIVE.get(name) or _native(_definitions()[name], status=status)


def _native(schema: JSON, *, status: bool) -> JSON:
    if "$ref" in schema:
        return native(schema["$ref"].rpartition("/")[2], status=status)
    out: JSON = {key: value for key, value in schema.items() if key in {"type", "format"}}
    if "required" in schema and not status:
        out["required"] = schema["required"]
    if "properties" in schema:
        out["properties"] = {
            name: _native(value, status=status or name == "status")
            for name, value in schema["properties"].items()
        }
    for key in ("items", "additionalProperties"):
        if key in schema:
            out[key] = _native(schema[key], status=status)
    if out.get("type") == "object" and not out.keys() & {"properties", "additionalProperties"}:
        out["x-kubernetes-preserve-unknown-fields"] = True
    return out


def structural(name: str) -> JSON:
    """One of Kubernetes' definitions as a structural schema with everything it refers to in place.

    Raises:
        KeyError: `kubernetes.json` does not hold the definition; add it to `ROOTS`.
    """
    out = _structural(_definitions()[name])
    if name in _OLDER_FIELDS:
        out["properties"] |= _OLDER_FIELDS[name]
    return out


def _structural(schema: JSON) -> JSON:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return dict(_SPECIAL[name]) if name in _SPECIAL else structural(name)
    out = {key: value for key, value in schema.items() if key in _KEPT}
    if "properties" in out:
        out["properties"] = {name: _property(name, value) for name, value in out["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in out:
            out[key] = _structural(out[key])
    return out


def _property(name: str, schema: JSON) -> JSON:
    out = _structural(schema)
    if schema.get("x-kubernetes-list-type") == "map" and name not in _DUPLICATES_ALLOWED:
        keys = schema["x-kubernetes-list-map-keys"]
        out |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys}
        item = out["items"]
        for key in set(keys) - set(item.get("required", ())):
            item["properties"][key]["default"] = _KEY_DEFAULTS[key]
    return out

"""OpenAPI documents: for `kubectl explain`, and for `kubectl apply` to see that the server validates fields.

Custom resources appear with the schema of their definition, built-in kinds with Kubernetes' own definitions,
which have no descriptions here.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from api.schema import definition_of, published

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controller.runtime.apiserver import Core, ServedKind
    from controller.runtime.client import JSON

PROTOBUF_2_TYPE: Final = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
PROTOBUF_2: Final = b"\x0a\x032.0\x12\x0b\x0a\x05local\x12\x02v1\x42\x00\x4a\x00"
"""A Swagger 2.0 document without paths and definitions, as protobuf (gnostic's `openapi.v2.Document`).

`kubectl` asks for it when version 3 knows nothing about a kind. From an empty one it learns that there is no
schema to check with, goes on, and says that there is no such kind.
"""
_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_INFO: Final = {"title": "Modelmesh local API server", "version": "v1"}
_TEXT: Final = {"type": "string"}
_PATCH_TYPES: Final = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
)
_QUERIES: Final = {
    "dryRun": "`All`: check the request, store nothing.",
    "fieldManager": "Who the changed fields belong to.",
    "fieldValidation": "What to do about unknown fields: Ignore, Warn or Strict.",
}
_OBJECT_META: Final = {
    "type": "object",
    "description": "Metadata that all objects have.",
    "properties": {
        "name": {"type": "string", "description": "Unique within a namespace. Cannot be updated."},
        "namespace": {"type": "string", "description": "The space within which the name must be unique."},
        "labels": {"type": "object", "additionalProperties": _TEXT, "description": "To select objects by."},
        "annotations": {"type": "object", "additionalProperties": _TEXT, "description": "Notes of tools."},
        "generateName": {"type": "string", "description": "Prefix of a name that the server completes."},
        "finalizers": {"type": "array", "items": _TEXT, "description": "What holds up the deletion."},
        "creationTimestamp": {"type": "string", "format": "date-time", "description": "Set by the server."},
        "deletionTimestamp": {"type": "string", "format": "date-time", "description": "Set by the server."},
        "generation": {"type": "integer", "format": "int64", "description": "Counts changes of the spec."},
        "resourceVersion": {"type": "string", "description": "Version of the object, for safe updates."},
        "uid": {"type": "string", "description": "Identity of the object in time and space."},
        "ownerReferences": {"type": "array", "items": {"type": "object"}, "description": "The owners."},
        "managedFields": {"type": "array", "items": {"type": "object"}, "description": "Owners of fields."},
    },
}


class Documents:
    """The OpenAPI documents of a server, kept until what it serves changes."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._kinds: tuple[ServedKind, ...] = ()
        self._v3: dict[str, bytes] = {}
        self._v2: bytes = b""

    def index(self) -> JSON:
        """Return the answer to `/openapi/v3`: a URL for each group and version, with its content's hash."""
        self._refresh()
        return {
            "paths": {
                path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={hashlib.sha256(document).hexdigest()}"}
                for path, document in self._v3.items()
            },
        }

    def version_3(self, path: str) -> bytes | None:
        """Return the document of `apis/GROUP/VERSION` or `api/v1`, None when it is not served."""
        self._refresh()
        return self._v3.get(path)

    def version_2(self) -> bytes:
        """Return everything as one Swagger 2.0 document."""
        self._refresh()
        if not self._v2:
            definitions = _schemas(self._kinds)
            paths = {path: item for kind in self._kinds for path, item in _paths(kind, _operation_2)}
            document = {"swagger": "2.0", "info": _INFO, "paths": paths, "definitions": definitions}
            self._v2 = msgspec.json.encode(document)
        return self._v2

    def _refresh(self) -> None:
        kinds = tuple(self._core.kinds)
        if kinds == self._kinds:
            return
        self._kinds, self._v2 = kinds, b""
        by_path: dict[str, list[ServedKind]] = {}
        for kind in kinds:
            by_path.setdefault(_prefix(kind).strip("/"), []).append(kind)
        self._v3 = {path: _document_3(members) for path, members in by_path.items()}


def _document_3(kinds: list[ServedKind]) -> bytes:
    paths = {path: item for kind in kinds for path, item in _paths(kind, _operation_3)}
    schemas = _schemas(kinds)
    document = {"openapi": "3.0.0", "info": _INFO, "paths": paths, "components": {"schemas": schemas}}
    return msgspec.json.encode(document).replace(b'"#/definitions/', b'"#/components/schemas/')


def _schemas(kinds: Iterable[ServedKind]) -> JSON:
    """Return the schemas of `kinds` with all they refer to; references start with `#/definitions/`."""
    native = {name for kind in kinds if (name := definition_of(kind.resource))}
    own = {_name(kind): _object_schema(kind) for kind in kinds if _name(kind) not in native}
    return published(native) | own | {_META: _OBJECT_META}


def _prefix(kind: ServedKind) -> str:
    resource = kind.resource
    return f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.version}"


def _name(kind: ServedKind) -> str:
    resource = kind.resource
    if name := definition_of(resource):
        return name
    group = ".".join(reversed(resource.group.split(".")))
    return f"{group}.{resource.version}.{resource.kind}"


def _identity(kind: ServedKind) -> JSON:
    resource = kind.resource
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _object_schema(kind: ServedKind) -> JSON:
    outline: JSON = {
        "type": "object",
        "properties": {"spec": {"type": "object"}, "status": {"type": "object"}},
    }
    schema = dict(kind.schema or outline)
    schema["properties"] = {
        **schema.get("properties", {}),
        "apiVersion": {"type": "string", "description": "Group and version of the schema of this object."},
        "kind": {"type": "string", "description": "What this object is."},
        "metadata": {
            "allOf": [{"$ref": f"#/definitions/{_META}"}],
            "description": "Standard object's metadata.",
        },
    }
    schema["x-kubernetes-group-version-kind"] = [_identity(kind)]
    return schema


def _paths(kind: ServedKind, operation: Any) -> Iterable[tuple[str, JSON]]:
    scope = "/namespaces/{namespace}" if kind.resource.namespaced else ""
    collection = f"{_prefix(kind)}{scope}/{kind.resource.plural}"
    yield collection, {"get": operation(kind, "list"), "post": operation(kind, "post")}
    actions = ("get", "put", "patch", "delete")
    yield f"{collection}/{{name}}", {action: operation(kind, action) for action in actions}


def _operation_3(kind: ServedKind, action: str) -> JSON:
    schema = {"$ref": f"#/definitions/{_name(kind)}"}
    operation: JSON = {
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _identity(kind),
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}},
    }
    if action in {"post", "put", "patch"}:
        operation["parameters"] = [
            {"name": name, "in": "query", "description": text, "schema": _TEXT}
            for name, text in _QUERIES.items()
        ]
        types = _PATCH_TYPES if action == "patch" else ("application/json",)
        content = {
            media_type: {"schema": schema if action != "patch" else {"type": "object"}}
            for media_type in types
        }
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _operation_2(kind: ServedKind, action: str) -> JSON:
    operation: JSON = {
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _identity(kind),
        "responses": {"200": {"description": "OK", "schema": {"$ref": f"#/definitions/{_name(kind)}"}}},
    }
    if action in {"post", "put", "patch"}:
        operation["parameters"] = [
            {"name": name, "in": "query", "type": "string", "description": text}
            for name, text in _QUERIES.items()
        ]
        operation["consumes"] = list(_PATCH_TYPES) if action == "patch" else ["application/json"]
    return operation

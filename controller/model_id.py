"""Concrete model ids: `NAME__SOURCE-HASH`, the same as the original ModelMesh gave.

The id changes exactly when the spec changes what would be loaded, so a new id is a new, immutable model in
the mesh. The hash is of the *Predictor form* of the spec, encoded as Go's `encoding/json` does: key order of
the original's Go structs, no white space, absent optional fields left out but present empty ones written, map
keys sorted bytewise, and `<`, `>`, `&`, U+2028 and U+2029 escaped. Users and dashboards hold these ids, and a
mesh that is upgraded in place must not load everything again, so not one byte may differ.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from api.v1alpha1 import PredictorSpec

JSON = dict[str, Any]

_HASH_DIGITS = 10
_GO_ESCAPES = str.maketrans(
    {
        "<": "\\u003c",
        ">": "\\u003e",
        "&": "\\u0026",
        "\u2028": "\\u2028",
        "\u2029": "\\u2029",
    },
)


class Source(StrEnum):
    """The kind of object that a model comes from: part of its id, and its owner in the mesh."""

    PREDICTOR = "ksp"
    INFERENCE_SERVICE = "isvc"

    @property
    def kind(self) -> str:
        """Kind of the Kubernetes object."""
        return "Predictor" if self is Source.PREDICTOR else "InferenceService"


def go_json(value: Any) -> str:
    """Encodes `value` as Go's encoder would, except that dicts keep their order: they stand for structs."""
    # Of the characters in the table, JSON text has none outside of strings.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_GO_ESCAPES)


def _present(**fields: Any) -> JSON:
    return {name: value for name, value in fields.items() if value is not None}


def _sorted_map(value: dict[str, str] | None) -> dict[str, str] | None:
    # Code point order equals the byte order of UTF-8, which Go sorts by.
    return None if value is None else dict(sorted(value.items()))


def _storage(spec: PredictorSpec) -> JSON | None:
    storage = spec.storage
    if storage is None:
        return None
    claim = storage.persistent_volume_claim
    s3 = storage.s3
    return _present(
        path=storage.path,
        schemaPath=storage.schema_path,
        parameters=_sorted_map(storage.parameters),
        key=storage.key,
        persistentVolumeClaim=claim
        and _present(claimName=claim.claim_name, readOnly=claim.read_only or None),
        s3=s3 and _present(secretKey=s3.secret_key, bucket=s3.bucket),
    )


def _model_type(spec: PredictorSpec) -> JSON:
    return _present(name=spec.model_type.name, version=spec.model_type.version)


def canonical_spec(spec: PredictorSpec) -> str:
    """Returns the JSON text that the hash is taken of."""
    return go_json(
        _present(
            serviceAccountName=spec.service_account_name,
            modelType=_model_type(spec),
            path=spec.path or "",
            schemaPath=spec.schema_path,
            storage=_storage(spec),
            gpu=spec.gpu,
            runtime=spec.runtime and {"name": spec.runtime.name},
            protocolVersion=spec.protocol_version,
        ),
    )


def concrete_id(name: str, source: Source, spec: PredictorSpec) -> str:
    """Returns the id under which the mesh knows the model that `spec` describes."""
    digest = hashlib.sha1(canonical_spec(spec).encode(), usedforsecurity=False).hexdigest()
    return f"{name}__{source}-{digest[:_HASH_DIGITS]}"


def owner_of(model_id: str) -> tuple[Source, str] | None:
    """Splits a concrete id into its source and the object's name; None where the id is not one of ours."""
    name, separator, suffix = model_id.rpartition("__")
    source, dash, digest = suffix.rpartition("-")
    if not (name and separator and dash and len(digest) == _HASH_DIGITS):
        return None
    try:
        return Source(source), name
    except ValueError:
        return None


def storage_fields(spec: PredictorSpec) -> tuple[str, str | None, dict[str, str]]:
    """Returns path, storage key and storage parameters, from whichever spelling the spec uses.

    Without any `storage` all are empty, the top-level `path` included; loading then fails in the puller
    with a message that says so, as it always did.
    """
    storage = spec.storage
    if storage is None:
        return "", None, {}
    path = storage.path if storage.path is not None else spec.path
    key, parameters = storage.key, storage.parameters
    if storage.s3 is not None:
        key = storage.s3.secret_key if key is None else key
        if parameters is None and storage.s3.bucket:
            parameters = {"bucket": storage.s3.bucket}
    return path or "", key, parameters or {}


def model_key(spec: PredictorSpec) -> str:
    """Returns `ModelInfo.key`: the JSON object that tells the puller and the adapter what to load."""
    _, key, parameters = storage_fields(spec)
    storage = spec.storage
    schema = storage.schema_path if storage and storage.schema_path is not None else spec.schema_path
    return go_json(
        _present(
            storage_key=key or None,
            storage_params=_sorted_map(parameters) or None,
            model_type=_model_type(spec),
            schema_path=schema or None,
        ),
    )

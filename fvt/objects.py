"""The objects that cases apply."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fvt.cluster import JSON

GROUP = "serving.kserve.io"
STORAGE_KEY = "localMinIO"
BUCKET = "modelmesh-example-models"
SKLEARN = "sklearn/mnist-svm.joblib"
XGBOOST = "xgboost/breast-cancer.json"
LIGHTGBM = "lightgbm/breast-cancer.bst"


def isvc(
    name: str,
    model_format: str = "sklearn",
    path: str = SKLEARN,
    *,
    uri: str = "",
    key: str | None = STORAGE_KEY,
    parameters: JSON | None = None,
    version: str = "",
    runtime: str = "",
    schema: str = "",
) -> JSON:
    """Return an InferenceService; `uri` takes the place of `path`, and the key is an annotation then."""
    annotations = {f"{GROUP}/deploymentMode": "ModelMesh"}
    model: JSON = {"modelFormat": {"name": model_format}}
    if version:
        model["modelFormat"]["version"] = version
    if runtime:
        model["runtime"] = runtime
    if uri:
        model["storageUri"] = uri
        if key:
            annotations[f"{GROUP}/secretKey"] = key
    else:
        model["storage"] = _storage(path, key, parameters, schema)
    return _object("v1beta1", "InferenceService", name, {"predictor": {"model": model}}, annotations)


def framework_isvc(name: str, framework: str, path: str) -> JSON:
    """Return an InferenceService of the old form, whose format is a key of the predictor."""
    block = {"storage": _storage(path, STORAGE_KEY, None, "")}
    annotations = {f"{GROUP}/deploymentMode": "ModelMesh"}
    return _object("v1beta1", "InferenceService", name, {"predictor": {framework: block}}, annotations)


def predictor(
    name: str,
    model_format: str = "sklearn",
    path: str = SKLEARN,
    *,
    key: str | None = STORAGE_KEY,
    parameters: JSON | None = None,
    version: str = "",
    runtime: str = "",
    schema: str = "",
) -> JSON:
    """Return a Predictor."""
    spec: JSON = {"modelType": {"name": model_format}, "storage": _storage(path, key, parameters, schema)}
    if version:
        spec["modelType"]["version"] = version
    if runtime:
        spec["runtime"] = {"name": runtime}
    return _object("v1alpha1", "Predictor", name, spec)


def config_map(name: str, **content: str) -> JSON:
    """Return a ConfigMap of texts."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": content}


def _storage(path: str, key: str | None, parameters: JSON | None, schema: str) -> JSON:
    storage: JSON = {"path": path}
    if key:
        storage["key"] = key
    if parameters:
        storage["parameters"] = parameters
    if schema:
        storage["schemaPath"] = schema
    return storage


def _object(version: str, kind: str, name: str, spec: JSON, annotations: JSON | None = None) -> JSON:
    metadata: JSON = {"name": name}
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": f"{GROUP}/{version}", "kind": kind, "metadata": metadata, "spec": spec}

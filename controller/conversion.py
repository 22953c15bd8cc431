"""From the objects users write to the one form the mesh is told: the Predictor's spec.

An InferenceService says the same in two ways (`predictor.model`, or the older `predictor.<framework>`) plus
annotations. Everything that contradicts itself raises InvalidSpecError with a text for the user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from api.v1alpha1 import ModelType, PredictorSpec, RuntimeReference, Storage
from api.v1beta1 import FRAMEWORKS
from controller import storage_uri
from controller.errors import InvalidSpecError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from api.v1beta1 import FrameworkSpec, InferenceService, StorageSpec

DEPLOYMENT_MODE = "serving.kserve.io/deploymentMode"
_SECRET_KEY = "serving.kserve.io/secretKey"  # noqa: S105 -- the name of an annotation
_SCHEMA_PATH = "serving.kserve.io/schemaPath"
_SERVING_RUNTIME = "serving.kserve.io/servingRuntime"


def is_modelmesh(isvc: InferenceService) -> bool:
    """Tells whether the InferenceService is ours; KServe serves the others."""
    return isvc.metadata.annotations.get(DEPLOYMENT_MODE) == "ModelMesh"


def predictor_spec(isvc: InferenceService) -> PredictorSpec:
    """Converts an InferenceService to the Predictor form."""
    predictor = isvc.spec.predictor
    annotations = isvc.metadata.annotations
    framework = predictor.framework()
    model = predictor.model
    source: FrameworkSpec
    if model is not None:
        if framework is not None:
            raise InvalidSpecError(f"spec.predictor has both model and {framework[0]}; keep one")
        if _SERVING_RUNTIME in annotations:
            raise InvalidSpecError(
                f"annotation {_SERVING_RUNTIME} cannot be combined with spec.predictor.model; "
                "name the runtime in spec.predictor.model.runtime",
            )
        if model.model_format is None:
            raise InvalidSpecError("spec.predictor.model needs modelFormat.name")
        model_type = ModelType(name=model.model_format.name, version=model.model_format.version)
        runtime, source = model.runtime, model
    elif framework is not None:
        name, source = framework
        model_type = ModelType(name=name)
        runtime = annotations.get(_SERVING_RUNTIME)
    else:
        raise InvalidSpecError(
            f"spec.predictor needs model (or one of {', '.join(FRAMEWORKS)}) to name a model format",
        )
    return PredictorSpec(
        model_type=model_type,
        storage=_storage(source.storage_uri, source.storage, annotations),
        runtime=None if runtime is None else RuntimeReference(name=runtime),
        protocol_version=source.protocol_version or None,
    )


def _storage(uri: str | None, given: StorageSpec | None, annotations: Mapping[str, str]) -> Storage:
    parameters = dict((given and given.parameters) or {})
    path = given.path if given else None
    if uri is not None:
        if path is not None:
            raise InvalidSpecError("spec.predictor has both storageUri and storage.path; keep one")
        location = storage_uri.parse(uri)
        path = location.path
        parameters |= location.parameters
    elif path is None:
        raise InvalidSpecError("spec.predictor needs storageUri or storage.path to tell where the model lies")
    key = given.key if given and given.key is not None else annotations.get(_SECRET_KEY)
    schema = given.schema_path if given else None
    return Storage(
        path=path,
        schema_path=schema if schema is not None else annotations.get(_SCHEMA_PATH),
        parameters=parameters,
        key=key,
    )


def check(spec: PredictorSpec) -> None:
    """Raises InvalidSpecError where a Predictor says one thing twice or uses what is not supported."""
    storage = spec.storage
    if storage is None:
        return
    if spec.path and storage.path:
        raise InvalidSpecError("spec.path and spec.storage.path are both set; keep spec.storage.path")
    if spec.schema_path and storage.schema_path:
        raise InvalidSpecError(
            "spec.schemaPath and spec.storage.schemaPath are both set; keep spec.storage.schemaPath",
        )
    if storage.persistent_volume_claim is not None:
        raise InvalidSpecError(
            "spec.storage.persistentVolumeClaim is not supported; use spec.storage.parameters with type: pvc",
        )
    newer = {
        "path": storage.path,
        "schemaPath": storage.schema_path,
        "parameters": storage.parameters,
        "key": storage.key,
    }
    clash = [f"spec.storage.{name}" for name, value in newer.items() if value is not None]
    if storage.s3 is not None and clash:
        raise InvalidSpecError(f"spec.storage.s3 cannot be combined with {', '.join(clash)}")

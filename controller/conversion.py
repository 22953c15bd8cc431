"""From the objects users write to the one form the mesh is told: the Predictor's spec.

An InferenceService says the same in two ways (`predictor.model`, or the older `predictor.<framework>`) plus
annotations. Everything that contradicts itself raises InvalidSpecError with a text for the user, the same as
the admission policy's (`api.v1beta1.rules`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from api.v1alpha1 import ModelType, PredictorSpec, RuntimeReference, Storage
from api.v1alpha1 import rules as predictor_rules
from api.v1beta1 import rules
from controller import storage_uri
from controller.errors import InvalidSpecError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from api.v1beta1 import FrameworkSpec, InferenceService, StorageSpec

_SECRET_KEY = "serving.kserve.io/secretKey"  # noqa: S105 -- the name of an annotation
_SCHEMA_PATH = "serving.kserve.io/schemaPath"


def is_modelmesh(isvc: InferenceService) -> bool:
    """Tells whether the InferenceService is ours; KServe serves the others."""
    return isvc.metadata.annotations.get(rules.DEPLOYMENT_MODE) == "ModelMesh"


def predictor_spec(isvc: InferenceService) -> PredictorSpec:
    """Converts an InferenceService to the Predictor form."""
    predictor = isvc.spec.predictor
    annotations = isvc.metadata.annotations
    framework = predictor.framework()
    model = predictor.model
    source: FrameworkSpec
    if model is not None:
        if framework is not None:
            raise InvalidSpecError(f"spec.predictor has both model and {framework[0]}: keep one")
        if rules.SERVING_RUNTIME in annotations:
            raise InvalidSpecError(rules.RUNTIME_ONCE.message)
        if model.model_format is None:
            raise InvalidSpecError(rules.FORMAT.message)
        model_type = ModelType(name=model.model_format.name, version=model.model_format.version)
        runtime, source = model.runtime, model
    elif framework is not None:
        name, source = framework
        model_type = ModelType(name=name)
        runtime = annotations.get(rules.SERVING_RUNTIME)
    else:
        raise InvalidSpecError(rules.ANY_BLOCK.message)
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
            raise InvalidSpecError(rules.ONE_PLACE.message)
        location = storage_uri.parse(uri)
        path = location.path
        parameters |= location.parameters
    elif path is None:
        raise InvalidSpecError(rules.ANY_PLACE.message)
    key = given.key if given and given.key is not None else annotations.get(_SECRET_KEY)
    schema = given.schema_path if given else None
    return Storage(
        path=path,
        schema_path=schema if schema is not None else annotations.get(_SCHEMA_PATH),
        parameters=parameters,
        key=key,
    )


def check(spec: PredictorSpec) -> None:
    """Raises InvalidSpecError where a Predictor says one thing twice or uses what is not supported.

    The CRD's rules say the same; an object may be older than they are.
    """
    storage = spec.storage
    if storage is None:
        return
    if spec.path and storage.path:
        raise InvalidSpecError(predictor_rules.PATHS.message)
    if spec.schema_path and storage.schema_path:
        raise InvalidSpecError(predictor_rules.SCHEMA_PATHS.message)
    if storage.persistent_volume_claim is not None:
        raise InvalidSpecError(predictor_rules.CLAIM.message)
    newer = (storage.path, storage.schema_path, storage.parameters, storage.key)
    if storage.s3 is not None and any(value is not None for value in newer):
        raise InvalidSpecError(predictor_rules.S3.message)

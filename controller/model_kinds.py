"""The two kinds of object that describe a model, behind one face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from api.meta import KubeObject
from api.v1alpha1 import Predictor, PredictorSpec
from api.v1beta1 import InferenceService
from controller import conversion, withdrawal
from controller.model_id import Source
from controller.status_fields import InferenceServiceFields, PredictorFields, StatusFields

if TYPE_CHECKING:
    from collections.abc import Callable

JSON = dict[str, Any]

T = TypeVar("T", bound=KubeObject)


@dataclass(frozen=True, slots=True)
class ModelKind(Generic[T]):
    """How to read one kind.

    Attributes:
        type: the API type.
        source: its mark in model ids and its owner name in the mesh.
        fields: reads and writes its status.
        is_ours: whether an object is for ModelMesh at all.
        spec: the Predictor form of its spec.
        check: raises InvalidSpecError where that contradicts itself.
        withdrawn: the status without what we wrote; None where there is nothing to take out.
    """

    type: type[T]
    source: Source
    fields: StatusFields
    is_ours: Callable[[T], bool]
    spec: Callable[[T], PredictorSpec]
    check: Callable[[PredictorSpec], None]
    withdrawn: Callable[[JSON], JSON | None]


def _accept(_: PredictorSpec) -> None:
    """Conversion has checked it: what it returns cannot contradict itself."""


def _is_model(_: Predictor) -> bool:
    return True


INFERENCE_SERVICE: ModelKind[InferenceService] = ModelKind(
    type=InferenceService,
    source=Source.INFERENCE_SERVICE,
    fields=InferenceServiceFields(),
    is_ours=conversion.is_modelmesh,
    spec=conversion.predictor_spec,
    check=_accept,
    withdrawn=withdrawal.inference_service,
)
PREDICTOR: ModelKind[Predictor] = ModelKind(
    type=Predictor,
    source=Source.PREDICTOR,
    fields=PredictorFields(),
    is_ours=_is_model,
    spec=lambda predictor: predictor.spec,
    check=conversion.check,
    withdrawn=withdrawal.predictor,
)

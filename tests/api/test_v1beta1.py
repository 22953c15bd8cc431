"""InferenceService as a Python object."""

import pytest
from pydantic import ValidationError

from api.v1beta1 import (
    FRAMEWORKS,
    InferenceService,
    ModelCopies,
    ModelStates,
    ModelStatus,
    PredictorSpec,
)


def test_what_modelmesh_reads_is_typed_and_the_rest_is_kept() -> None:
    spec = {
        "predictor": {
            "minReplicas": 1,
            "model": {
                "modelFormat": {"name": "sklearn", "version": "1"},
                "runtime": "",
                "protocolVersion": "v2",
                "storage": {"key": "k", "path": "p", "schemaPath": "s", "parameters": {"bucket": "b"}},
                "resources": {"limits": {"cpu": "1"}},
                "runtimeVersion": "1.0",
                "terminationMessagePath": "/t",
            },
            "dnsPolicy": "Default",
        },
        "transformer": {"containers": [{"image": "i", "name": "c"}]},
        "explainer": {"art": {"type": "SquareAttack", "config": {"nb_classes": "10"}}},
    }
    service = InferenceService.parse({"spec": spec})
    model = service.spec.predictor.model
    assert model is not None
    assert model.model_format is not None
    assert (model.model_format.name, model.model_format.version) == ("sklearn", "1")
    assert model.runtime == ""
    assert model.storage is not None
    assert model.storage.parameters == {"bucket": "b"}
    assert service.dump()["spec"] == spec


def test_the_first_framework_block_in_order_counts() -> None:
    predictor = PredictorSpec.parse({"sklearn": {"storageUri": "a"}, "xgboost": {"storageUri": "b"}})
    found = predictor.framework()
    assert found is not None
    assert (found[0], found[1].storage_uri) == ("xgboost", "b")


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_each_known_framework_is_found(name: str) -> None:
    found = PredictorSpec.parse({name: {}}).framework()
    assert found is not None
    assert found[0] == name


@pytest.mark.parametrize("raw", [{}, {"paddle": {}}, {"huggingface": {}}, {"containers": []}])
def test_other_predictors_have_no_framework(raw: dict[str, object]) -> None:
    assert PredictorSpec.parse(raw).framework() is None


def test_a_written_model_status_has_the_fields_that_the_schema_requires() -> None:
    status = ModelStatus(states=ModelStates(), copies=ModelCopies())
    assert status.dump() == {
        "transitionStatus": "UpToDate",
        "states": {"activeModelState": "Pending"},
        "copies": {"failedCopies": 0},
    }


def test_status_of_other_controllers_survives() -> None:
    status = {
        "conditions": [{"type": "TransformerReady", "status": "True", "severity": "Info"}],
        "components": {"transformer": {"url": "http://t", "traffic": [{"percent": 100, "tag": "prev"}]}},
        "address": {"url": "http://a", "CACerts": "pem"},
        "deploymentMode": "ModelMesh",
    }
    assert InferenceService.parse({"spec": {"predictor": {}}, "status": status}).dump()["status"] == status


@pytest.mark.parametrize(
    "status",
    [
        {"modelStatus": {"transitionStatus": "Done"}},
        {"modelStatus": {"transitionStatus": "UpToDate", "states": {"activeModelState": "loaded"}}},
        {"modelStatus": {"lastFailureInfo": {"reason": "BadLuck"}}},
    ],
)
def test_values_outside_the_contract_are_refused(status: object) -> None:
    with pytest.raises(ValidationError):
        InferenceService.parse({"spec": {"predictor": {}}, "status": status})


def test_this_transition_status_may_be_empty() -> None:
    assert ModelStatus.parse({"transitionStatus": ""}).transition_status == ""


def test_a_service_without_predictor_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"spec\.predictor"):
        InferenceService.parse({"spec": {}})

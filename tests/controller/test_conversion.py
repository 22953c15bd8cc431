from typing import Any

import pytest

from api.v1alpha1 import PredictorSpec
from api.v1beta1 import InferenceService
from controller.conversion import check, is_modelmesh, predictor_spec
from controller.errors import InvalidSpecError


def _isvc(predictor: dict[str, Any], **annotations: str) -> InferenceService:
    keys = {f"serving.kserve.io/{key}": value for key, value in annotations.items()}
    return InferenceService.parse(
        {"metadata": {"name": "m", "annotations": keys}, "spec": {"predictor": predictor}}
    )


MODEL = {"modelFormat": {"name": "sklearn", "version": "0"}}


def test_only_annotated_objects_are_ours() -> None:
    assert is_modelmesh(_isvc({}, deploymentMode="ModelMesh"))
    assert not is_modelmesh(_isvc({}, deploymentMode="modelmesh"))
    assert not is_modelmesh(_isvc({}))


def test_model_form() -> None:
    spec = predictor_spec(
        _isvc(
            {
                "model": MODEL
                | {"runtime": "r", "protocolVersion": "v2", "storage": {"path": "p", "schemaPath": "s"}},
            },
            secretKey="k",
            schemaPath="ignored",
        ),
    )
    assert spec.dump() == {
        "modelType": {"name": "sklearn", "version": "0"},
        "storage": {"path": "p", "schemaPath": "s", "parameters": {}, "key": "k"},
        "runtime": {"name": "r"},
        "protocolVersion": "v2",
    }


def test_framework_form_takes_the_first_known_block() -> None:
    spec = predictor_spec(
        _isvc(
            {"sklearn": {"storageUri": "s3://b/p"}, "xgboost": {"storageUri": "s3://b/q"}},
            servingRuntime="r",
            secretKey="k",
            schemaPath="s",
        ),
    )
    assert spec.dump() == {
        "modelType": {"name": "xgboost"},
        "storage": {
            "path": "q",
            "schemaPath": "s",
            "parameters": {"type": "s3", "bucket": "b"},
            "key": "k",
        },
        "runtime": {"name": "r"},
    }


def test_the_uri_wins_over_parameters() -> None:
    storage = {"parameters": {"bucket": "other", "region": "r"}, "key": "own"}
    spec = predictor_spec(
        _isvc({"model": MODEL | {"storageUri": "s3://b/p", "storage": storage}}, secretKey="k")
    )
    assert spec.storage is not None
    assert spec.storage.parameters == {"type": "s3", "bucket": "b", "region": "r"}
    assert spec.storage.key == "own"


def test_an_empty_runtime_is_kept_as_written() -> None:
    spec = predictor_spec(_isvc({"model": MODEL | {"runtime": "", "storageUri": "s3://b/p"}}))
    assert spec.runtime is not None
    assert spec.runtime.name == ""


@pytest.mark.parametrize(
    ("predictor", "annotations", "names"),
    [
        ({"model": MODEL, "sklearn": {}}, {}, "both model and sklearn"),
        ({"model": MODEL}, {"servingRuntime": "r"}, "servingRuntime"),
        ({}, {}, "names no model"),
        ({"paddle": {}}, {}, "names no model"),
        ({"model": {"storageUri": "s3://b/p"}}, {}, "modelFormat"),
        ({"model": MODEL}, {}, "storageUri or storage.path"),
        ({"model": MODEL | {"storage": {"key": "k"}}}, {}, "storageUri or storage.path"),
        ({"model": MODEL | {"storageUri": "s3://b/p", "storage": {"path": "p"}}}, {}, "both storageUri"),
        ({"model": MODEL | {"storageUri": "ftp://b/p"}}, {}, "ftp"),
    ],
)
def test_contradictions_name_the_fields(
    predictor: dict[str, Any],
    annotations: dict[str, str],
    names: str,
) -> None:
    with pytest.raises(InvalidSpecError, match=names):
        predictor_spec(_isvc(predictor, **annotations))


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"path": "a", "storage": {"path": "b"}}, r"spec\.path and spec\.storage\.path"),
        ({"schemaPath": "a", "storage": {"schemaPath": "b"}}, "schemaPath"),
        ({"storage": {"persistentVolumeClaim": {"claimName": "c"}}}, "persistentVolumeClaim"),
        ({"storage": {"s3": {"secretKey": "k"}, "key": "k"}}, r"spec\.storage\.s3 cannot be combined"),
        ({"storage": {"s3": {"secretKey": "k"}, "parameters": {}}}, r"spec\.storage\.s3"),
    ],
)
def test_predictor_rules_name_the_fields(fields: dict[str, Any], names: str) -> None:
    with pytest.raises(InvalidSpecError, match=names):
        check(PredictorSpec.parse({"modelType": {"name": "x"}, **fields}))


@pytest.mark.parametrize(
    "fields",
    [
        {"path": "a"},
        {"path": "a", "storage": {"s3": {"secretKey": "k"}}},
        {"storage": {"path": "b", "key": "k"}},
    ],
)
def test_sound_predictors_pass(fields: dict[str, Any]) -> None:
    check(PredictorSpec.parse({"modelType": {"name": "x"}, **fields}))

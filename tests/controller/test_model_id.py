"""Ids printed in the original's documentation, and the encoding behind them."""

import json

import pytest

from api.v1alpha1 import ModelType, PredictorSpec, RuntimeReference, S3Storage, Storage
from api.v1beta1 import InferenceService
from controller.conversion import predictor_spec
from controller.model_id import Source, canonical_spec, concrete_id, model_key, owner_of, storage_fields


def _predictor(model_format: str, path: str) -> PredictorSpec:
    return PredictorSpec(
        model_type=ModelType(name=model_format),
        path=path,
        storage=Storage(s3=S3Storage(secret_key="localMinIO")),
    )


def _isvc(model: dict, **annotations: str) -> PredictorSpec:
    keys = {"deploymentMode": "ModelMesh", **annotations}
    metadata = {"name": "m", "annotations": {f"serving.kserve.io/{k}": v for k, v in keys.items()}}
    return predictor_spec(
        InferenceService.parse({"metadata": metadata, "spec": {"predictor": {"model": model}}}),
    )


SKLEARN = {"modelFormat": {"name": "sklearn"}}
PVC = {"type": "pvc", "name": "my-models-pvc"}


@pytest.mark.parametrize(
    ("spec", "suffix"),
    [
        (_predictor("sklearn", "sklearn/mnist-svm.joblib"), "ksp-7702c1b55a"),
        (_predictor("keras", "keras/mnist.h5"), "ksp-f3ccc51d50"),
        (_predictor("lightgbm", "lightgbm/mushroom.bst"), "ksp-297b372253"),
        (_predictor("onnx", "onnx/mnist.onnx"), "ksp-0dbc77db1a"),
        (_predictor("pytorch", "pytorch/cifar"), "ksp-d2b754f2bf"),
        (_predictor("tensorflow", "tensorflow/mnist.savedmodel"), "ksp-c3597b719f"),
        (_predictor("xgboost", "xgboost/mushroom.json"), "ksp-f624b27e99"),
        (
            _isvc(SKLEARN | {"storage": {"key": "localMinIO", "path": "sklearn/mnist-svm.joblib"}}),
            "isvc-6b2eb0b8bf",
        ),
        (
            _isvc(
                SKLEARN | {"storageUri": "s3://modelmesh-example-models/sklearn/mnist-svm.joblib"},
                secretKey="localMinIO",
            ),
            "isvc-3642375d03",
        ),
        (
            _isvc(SKLEARN | {"storage": {"parameters": PVC, "path": "sklearn/mnist-svm.joblib"}}),
            "isvc-3d2daa3370",
        ),
        (
            _isvc(
                {
                    "modelFormat": {"name": "custom-model"},
                    "runtime": "my-custom-model-0.x",
                    "storage": {"parameters": PVC, "path": "mnist-svm.joblib"},
                },
            ),
            "isvc-72fbffc584",
        ),
    ],
)
def test_ids_equal_those_the_original_documented(spec: PredictorSpec, suffix: str) -> None:
    source = Source(suffix.partition("-")[0])
    assert concrete_id("example", source, spec) == f"example__{suffix}"


def test_strings_are_escaped_as_go_does() -> None:
    spec = PredictorSpec(
        model_type=ModelType(name="<a>&\u2028\u2029é☃"),
        storage=Storage(path='q"\\\b\n', parameters={"b": "2", "a": "1", "Z": "0"}),
    )
    assert canonical_spec(spec) == (
        r'{"modelType":{"name":"\u003ca\u003e\u0026\u2028\u2029é☃"},"path":"",'
        r'"storage":{"path":"q\"\\\b\n","parameters":{"Z":"0","a":"1","b":"2"}}}'
    )


def test_absent_and_empty_are_different_models() -> None:
    absent = PredictorSpec(model_type=ModelType(name="x"), storage=Storage())
    empty = PredictorSpec(model_type=ModelType(name="x"), storage=Storage(key="", parameters={}))
    assert canonical_spec(absent) == '{"modelType":{"name":"x"},"path":"","storage":{}}'
    assert (
        canonical_spec(empty) == '{"modelType":{"name":"x"},"path":"","storage":{"parameters":{},"key":""}}'
    )


def test_all_fields_come_in_the_order_of_the_original() -> None:
    spec = PredictorSpec.parse(
        {
            "protocolVersion": "v2",
            "runtime": {"name": "r"},
            "gpu": "required",
            "storage": {
                "s3": {"bucket": "b", "secretKey": "k"},
                "persistentVolumeClaim": {"readOnly": False, "claimName": "c"},
                "key": "k",
                "schemaPath": "s",
                "path": "p",
            },
            "schemaPath": "s",
            "path": "p",
            "modelType": {"version": "1", "name": "x"},
            "serviceAccountName": "a",
        },
    )
    assert canonical_spec(spec) == (
        '{"serviceAccountName":"a","modelType":{"name":"x","version":"1"},"path":"p","schemaPath":"s",'
        '"storage":{"path":"p","schemaPath":"s","key":"k","persistentVolumeClaim":{"claimName":"c"},'
        '"s3":{"secretKey":"k","bucket":"b"}},"gpu":"required","runtime":{"name":"r"},"protocolVersion":"v2"}'
    )


@pytest.mark.parametrize(
    ("model_id", "owner"),
    [
        ("m__isvc-6b2eb0b8bf", (Source.INFERENCE_SERVICE, "m")),
        ("a__b__ksp-7702c1b55a", (Source.PREDICTOR, "a__b")),
        ("m__isvc-6b2eb0b8b", None),
        ("m__other-6b2eb0b8bf", None),
        ("__isvc-6b2eb0b8bf", None),
        ("static-model", None),
    ],
)
def test_ids_tell_whose_they_are(model_id: str, owner: tuple[Source, str] | None) -> None:
    assert owner_of(model_id) == owner


def test_model_key_names_storage_type_and_schema() -> None:
    spec = PredictorSpec(
        model_type=ModelType(name="sklearn", version="0"),
        storage=Storage(path="p", key="k", parameters={"type": "s3", "bucket": "b"}, schema_path="s"),
    )
    assert model_key(spec) == (
        '{"storage_key":"k","storage_params":{"bucket":"b","type":"s3"},'
        '"model_type":{"name":"sklearn","version":"0"},"schema_path":"s"}'
    )


def test_model_key_of_the_s3_form() -> None:
    spec = PredictorSpec(
        model_type=ModelType(name="x"),
        path="p",
        schema_path="s",
        storage=Storage(s3=S3Storage(secret_key="k", bucket="b")),
    )
    assert storage_fields(spec)[0] == "p"
    assert json.loads(model_key(spec)) == {
        "storage_key": "k",
        "storage_params": {"bucket": "b"},
        "model_type": {"name": "x"},
        "schema_path": "s",
    }


def test_without_storage_the_path_does_not_count() -> None:
    spec = PredictorSpec(model_type=ModelType(name="x"), path="p", runtime=RuntimeReference(name="r"))
    assert storage_fields(spec) == ("", None, {})
    assert model_key(spec) == '{"model_type":{"name":"x"}}'

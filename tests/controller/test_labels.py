import base64
import json

import pytest

from api.v1alpha1 import ModelType, PredictorSpec, RuntimeReference, ServingRuntimeSpec
from controller import constraints
from controller.labels import model_type, runtime_labels, supports

MLSERVER = ServingRuntimeSpec.parse(
    {
        "containers": [],
        "protocolVersions": ["grpc-v2"],
        "supportedModelFormats": [
            {"name": "sklearn", "version": "0", "autoSelect": True},
            {"name": "xgboost", "autoSelect": True},
            {"name": "onnx"},
        ],
    },
)
TORCHSERVE = ServingRuntimeSpec.parse(
    {"containers": [], "supportedModelFormats": [{"name": "mar", "autoSelect": True}]},
)


@pytest.mark.parametrize(
    ("rest", "protocols"),
    [(False, ["pv:grpc-v2"]), (True, ["pv:grpc-v2", "pv:v2"])],
)
def test_a_runtimes_labels_are_sorted(rest: bool, protocols: list[str]) -> None:  # noqa: FBT001
    assert list(runtime_labels("r", MLSERVER, rest=rest)) == [
        "mt:sklearn",
        "mt:sklearn:0",
        "mt:xgboost",
        *protocols,
        "rt:r",
    ]


@pytest.mark.parametrize(
    ("name", "version", "protocol", "runtime", "expected"),
    [
        ("sklearn", None, None, None, "mt:sklearn"),
        ("sklearn", "0", None, None, "mt:sklearn:0"),
        ("sklearn", "0", "v2", None, "mt:sklearn:0|pv:v2"),
        ("sklearn", "0", "v2", "r", "rt:r"),
        ("sklearn", None, None, "", "mt:sklearn"),
    ],
)
def test_a_models_type(
    name: str,
    version: str | None,
    protocol: str | None,
    runtime: str | None,
    expected: str,
) -> None:
    spec = PredictorSpec(
        model_type=ModelType(name=name, version=version),
        protocol_version=protocol,
        runtime=None if runtime is None else RuntimeReference(name=runtime),
    )
    assert model_type(spec) == expected


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        ("mt:sklearn", True),
        ("mt:sklearn:0|pv:v2", True),
        ("mt:sklearn:1", False),
        ("mt:onnx", False),
        ("rt:r", True),
        ("mt:sklearn|pv:v1", False),
    ],
)
def test_every_part_must_be_among_the_labels(type_: str, expected: bool) -> None:  # noqa: FBT001
    assert supports(runtime_labels("r", MLSERVER, rest=True), type_) is expected


def test_type_constraints_hold_every_type_and_the_default() -> None:
    text = constraints.type_constraints({"ml": MLSERVER, "ts": TORCHSERVE}, rest=False)
    assert text.startswith('{"_default":{"required":["_no_runtime"]},"mt:mar"')
    assert {type_: entry["required"] for type_, entry in json.loads(text).items()} == {
        "_default": ["_no_runtime"],
        "mt:mar": ["mt:mar"],
        "mt:sklearn": ["mt:sklearn"],
        "mt:sklearn|pv:grpc-v2": ["mt:sklearn", "pv:grpc-v2"],
        "mt:sklearn:0": ["mt:sklearn:0"],
        "mt:sklearn:0|pv:grpc-v2": ["mt:sklearn:0", "pv:grpc-v2"],
        "mt:xgboost": ["mt:xgboost"],
        "mt:xgboost|pv:grpc-v2": ["mt:xgboost", "pv:grpc-v2"],
        "rt:ml": ["rt:ml"],
        "rt:ts": ["rt:ts"],
    }


def test_tc_config_keeps_its_entries_binary() -> None:
    built = constraints.config_map("ns", {}, "modelmesh-serving", rest=True)
    assert built["metadata"]["name"] == "tc-config"
    assert "data" not in built
    files = {name: json.loads(base64.b64decode(text)) for name, text in built["binaryData"].items()}
    assert files["type_constraints"] == {"_default": {"required": ["_no_runtime"]}}
    assert files["dataplane_api_config"]["allowOtherRpcs"] is True
    infer = files["dataplane_api_config"]["rpcConfigs"]["inference.GRPCInferenceService/ModelInfer"]
    assert infer == {"idExtractionPath": [1], "vModelId": True}

"""The CRDs are legal, complete and up to date, and small enough for `kubectl apply`."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from api import crd, v1alpha1, v1beta1
from api.meta import KubeObject, Model
from api.v1alpha1 import ClusterServingRuntime, Predictor, ServingRuntime
from api.v1beta1 import InferenceService
from controller.runtime.apiserver.schema import default, prune, validate

JSON = dict[str, Any]
KINDS = list(crd.COLUMNS)
SCHEMAS = {cls: crd.schema(cls) for cls in KINDS}
ALL = pytest.mark.parametrize("cls", KINDS, ids=lambda cls: cls.__name__)

KEYWORDS = {
    "additionalProperties",
    "anyOf",
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
}


def nodes(schema: JSON, path: str = "") -> Iterator[tuple[str, JSON]]:
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from nodes(part, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}[]")


def at(schema: JSON, path: str) -> JSON:
    found: JSON = dict(nodes(schema))[path]
    return found


@ALL
def test_schemas_say_nothing_that_a_structural_schema_must_not(cls: type[KubeObject]) -> None:
    for path, node in nodes(SCHEMAS[cls]):
        assert node.keys() <= KEYWORDS, path
        assert not ("properties" in node and "additionalProperties" in node), path
        if node.get("x-kubernetes-int-or-string"):
            assert "type" not in node, path
            assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}], path
        else:
            assert node["type"] in {"object", "array", "string", "integer", "boolean"}, path
            assert "anyOf" not in node, path
        assert ("items" in node) == (node.get("type") == "array"), path
        assert node.get("required") != [], path
        assert set(node.get("required", ())) <= node.get("properties", {}).keys(), path


@ALL
def test_keys_of_keyed_lists_are_always_there(cls: type[KubeObject]) -> None:
    keyed = [(path, node) for path, node in nodes(SCHEMAS[cls]) if "x-kubernetes-list-map-keys" in node]
    for path, node in keyed:
        assert node["x-kubernetes-list-type"] == "map", path
        item = node["items"]
        for key in node["x-kubernetes-list-map-keys"]:
            assert key in item["required"] or "default" in item["properties"][key], path
    assert keyed or cls is Predictor


@ALL
def test_defaults_are_valid(cls: type[KubeObject]) -> None:
    for path, node in nodes(SCHEMAS[cls]):
        if "default" in node:
            value = copy.deepcopy(node["default"])
            assert prune(node, value) == [], path
            assert list(validate(node, value)) == [], path


@ALL
def test_metadata_is_left_to_the_api_server(cls: type[KubeObject]) -> None:
    properties = SCHEMAS[cls]["properties"]
    assert properties["metadata"] == {"type": "object"}
    assert properties["apiVersion"] == properties["kind"] == {"type": "string"}


@ALL
def test_every_crd_fits_into_the_annotation_of_client_side_apply(cls: type[KubeObject]) -> None:
    text = (crd.CRD_DIR / crd.file_name(cls.RESOURCE)).read_text()
    applied = json.dumps(yaml.load(text, Loader=yaml.CSafeLoader), separators=(",", ":"))
    assert len(applied) < 0.9 * crd.MAX_BYTES
    assert len(text.encode()) < 0.9 * crd.MAX_BYTES


@pytest.mark.parametrize(
    "cls",
    [
        cls
        for module in (v1alpha1, v1beta1)
        for cls in vars(module).values()
        if isinstance(cls, type) and not issubclass(cls, KubeObject)
    ],
    ids=lambda cls: f"{cls.__module__}.{cls.__name__}",
)
def test_every_field_of_ours_has_a_text_for_kubectl_explain(cls: type[Model]) -> None:
    typed_elsewhere = {name for base in cls.__mro__[1:] for name in getattr(base, "model_fields", ())}
    ours = {name: field for name, field in cls.model_fields.items() if name not in typed_elsewhere}
    assert [name for name, field in ours.items() if not field.description] == []
    assert cls.__doc__


def test_the_files_are_up_to_date() -> None:
    assert crd.outdated() == []
    assert {path.name for path in crd.CRD_DIR.glob("serving.*.yaml")} == {
        crd.file_name(cls.RESOURCE) for cls in KINDS
    }


def test_check_names_a_file_that_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crd, "CONFIG_DIR", tmp_path)
    assert crd.main([]) == 0
    assert crd.main(["--check"]) == 0
    changed = tmp_path / "crd" / crd.file_name(Predictor.RESOURCE)
    changed.write_text(changed.read_text() + "#\n")
    assert crd.main(["--check"]) == 1
    assert changed.name in capsys.readouterr().err


@ALL
def test_files_say_what_the_definition_says(cls: type[KubeObject]) -> None:
    text = (crd.CRD_DIR / crd.file_name(cls.RESOURCE)).read_text()
    assert yaml.load(text, Loader=yaml.CSafeLoader) == crd.definition(cls)


@pytest.mark.parametrize(
    ("cls", "scope", "version", "short", "subresources"),
    [
        (ServingRuntime, "Namespaced", "v1alpha1", None, {"status": {}}),
        (ClusterServingRuntime, "Cluster", "v1alpha1", None, {"status": {}}),
        (Predictor, "Namespaced", "v1alpha1", None, {"status": {}}),
        (InferenceService, "Namespaced", "v1beta1", ["isvc"], {"status": {}}),
    ],
)
def test_names_scope_and_subresources(
    cls: type[KubeObject], scope: str, version: str, short: list[str] | None, subresources: JSON
) -> None:
    spec = crd.definition(cls)["spec"]
    assert (spec["group"], spec["scope"], spec["names"]["kind"]) == (
        "serving.kserve.io",
        scope,
        cls.__name__,
    )
    assert spec["names"]["plural"] == cls.__name__.lower() + "s"
    assert spec["names"]["singular"] == cls.__name__.lower()
    assert spec["names"].get("shortNames") == short
    assert [entry["name"] for entry in spec["versions"]] == [version]
    assert spec["versions"][0]["subresources"] == subresources


@pytest.mark.parametrize(
    ("cls", "columns"),
    [
        (ServingRuntime, "Disabled ModelType Containers Ready Pods Models Memory Age"),
        (ClusterServingRuntime, "Disabled ModelType Containers Ready Pods Models Memory Age"),
        (Predictor, "Type Available ActiveModel TargetModel Transition Age"),
        (InferenceService, "URL Ready Prev Latest PrevRolledoutRevision LatestReadyRevision Age"),
    ],
)
def test_printer_columns(cls: type[KubeObject], columns: str) -> None:
    printed = crd.definition(cls)["spec"]["versions"][0]["additionalPrinterColumns"]
    assert [column["name"] for column in printed] == columns.split()
    assert printed[-1] == {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def test_a_new_predictor_shows_its_status_at_once() -> None:
    obj = {"spec": {"modelType": {"name": "sklearn"}}}
    default(SCHEMAS[Predictor], obj)
    assert obj["status"] == {
        "transitionStatus": "UpToDate",
        "activeModelState": "Pending",
        "targetModelState": "",
        "available": False,
        "failedCopies": 0,
        "totalCopies": 0,
    }
    assert set(at(SCHEMAS[Predictor], ".status")["required"]) == obj["status"].keys()


@pytest.mark.parametrize(
    ("cls", "path", "values"),
    [
        (Predictor, ".spec.gpu", "required preferred"),
        (Predictor, ".status.transitionStatus", "UpToDate InProgress BlockedByFailedLoad InvalidSpec"),
        (Predictor, ".status.activeModelState", "- Pending Standby Loading Loaded FailedToLoad"),
        (Predictor, ".status.targetModelState", "- Pending Standby Loading Loaded FailedToLoad"),
        (
            Predictor,
            ".status.lastFailureInfo.reason",
            "ModelLoadFailed RuntimeUnhealthy NoSupportingRuntime RuntimeNotRecognized InvalidPredictorSpec",
        ),
        (
            InferenceService,
            ".status.modelStatus.transitionStatus",
            "- UpToDate InProgress BlockedByFailedLoad InvalidSpec",
        ),
        (
            InferenceService,
            ".status.modelStatus.lastFailureInfo.reason",
            (
                "ModelLoadFailed RuntimeUnhealthy RuntimeDisabled NoSupportingRuntime "
                "RuntimeNotRecognized InvalidPredictorSpec"
            ),
        ),
        (InferenceService, ".spec.predictor.logger.mode", "all request response"),
        (InferenceService, ".spec.predictor.scaleMetric", "cpu memory concurrency rps"),
    ],
)
def test_enumerations(cls: type[KubeObject], path: str, values: str) -> None:
    assert set(at(SCHEMAS[cls], path)["enum"]) == {"" if v == "-" else v for v in values.split()}


@pytest.mark.parametrize(
    ("cls", "path", "required"),
    [
        (ServingRuntime, ".spec", ["containers"]),
        (ServingRuntime, ".spec.containers[]", ["name"]),
        (ServingRuntime, ".spec.supportedModelFormats[]", ["name"]),
        (Predictor, ".spec", ["modelType"]),
        (Predictor, ".spec.modelType", ["name"]),
        (Predictor, ".spec.storage", None),
        (Predictor, ".spec.storage.s3", ["secretKey"]),
        (Predictor, ".spec.runtime", ["name"]),
        (InferenceService, ".spec", ["predictor"]),
        (InferenceService, ".spec.predictor", None),
        (InferenceService, ".spec.predictor.model", None),
        (InferenceService, ".spec.predictor.model.modelFormat", ["name"]),
        (InferenceService, ".status.modelStatus", ["transitionStatus"]),
        (InferenceService, ".status.modelStatus.states", ["activeModelState"]),
        (InferenceService, ".status.modelStatus.copies", ["failedCopies"]),
    ],
)
def test_required_fields(cls: type[KubeObject], path: str, required: list[str] | None) -> None:
    assert at(SCHEMAS[cls], path).get("required") == required


def test_both_runtime_kinds_have_one_schema() -> None:
    ours, theirs = SCHEMAS[ServingRuntime], SCHEMAS[ClusterServingRuntime]
    assert ours["properties"] == theirs["properties"]


def test_model_is_typed_in_every_part_of_its_container() -> None:
    model = at(SCHEMAS[InferenceService], ".spec.predictor.model")
    assert not [path for path, node in nodes(model) if node.get("x-kubernetes-preserve-unknown-fields")]

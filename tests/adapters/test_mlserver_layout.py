"""How models are laid out for MLServer: the original's layouts, and its crashes as clear errors."""

import json
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import InvalidModelError
from adapters.mlserver import MLServerAdapter
from adapters.sdk import Model

MODEL_ID = "model__isvc-1"


class Layout:
    """Lays a source out and looks at the result."""

    def __init__(self, root: Path) -> None:
        self.source = root / "pulled"
        self.folder = root / "_mlserver_models" / MODEL_ID
        self.source.mkdir()

    def write(self, files: dict[str, Any]) -> None:
        for name, content in files.items():
            file = self.source / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content if isinstance(content, str) else json.dumps(content))

    def lay_out(self, path: Path, model_type: str = "sklearn", schema: Path | None = None) -> dict[str, Any]:
        self.folder.mkdir(parents=True)
        adapter = MLServerAdapter.__new__(MLServerAdapter)
        adapter.lay_out(Model(MODEL_ID, model_type, path, schema), self.folder)
        settings: dict[str, Any] = json.loads((self.folder / "model-settings.json").read_text())
        return settings

    def links(self) -> dict[str, Path]:
        return {path.name: path.readlink() for path in self.folder.iterdir() if path.is_symlink()}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


@pytest.mark.parametrize(
    ("model_type", "implementation"),
    [
        ("sklearn", "mlserver_sklearn.SKLearnModel"),
        ("xgboost", "mlserver_xgboost.XGBoostModel"),
        ("lightgbm", "mlserver_lightgbm.LightGBMModel"),
        ("mllib", "mlserver_mllib.MLlibModel"),
        ("my-own", None),
    ],
)
def test_a_file_is_linked_and_settings_are_generated(
    layout: Layout, model_type: str, implementation: str | None
) -> None:
    layout.write({"model.joblib": "x"})
    file = layout.source / "model.joblib"
    settings = layout.lay_out(file, model_type)
    assert layout.links() == {"model.joblib": file}
    assert settings.get("implementation") == implementation
    assert ("implementation" in settings) is bool(implementation)
    assert settings["name"] == MODEL_ID
    assert settings["parameters"] == {"uri": str(layout.folder / "model.joblib")}
    written = layout.folder / "model-settings.json"
    assert written.stat().st_mode & 0o777 == 0o664
    assert written.read_text().startswith('{\n  "name"')


def test_a_folder_is_linked_as_one(layout: Layout) -> None:
    layout.write({"a": "1", "data/b": "2"})
    settings = layout.lay_out(layout.source)
    assert layout.links() == {"pulled": layout.source}
    assert settings["parameters"]["uri"] == str(layout.folder / "pulled")


def test_a_source_that_is_named_like_the_model_is_linked_too(layout: Layout) -> None:
    source = layout.source / MODEL_ID
    source.mkdir()
    assert layout.lay_out(source)["parameters"]["uri"] == str(layout.folder / MODEL_ID)


def test_native_settings_keep_all_but_name_and_uri(layout: Layout) -> None:
    native = {
        "name": "mushroom",
        "implementation": "mlserver_xgboost.XGBoostModel",
        "parameters": {"uri": "./mushroom-xgboost.json", "version": "v0.1.0"},
    }
    layout.write({"model-settings.json": native, "mushroom-xgboost.json": "{}", "aaaaa.json": "{}"})
    (layout.source / "model-settings.json").chmod(0o600)
    settings = layout.lay_out(layout.source, "xgboost")
    assert settings == native | {
        "name": MODEL_ID,
        "parameters": {"uri": str(layout.folder / "mushroom-xgboost.json"), "version": "v0.1.0"},
    }
    assert layout.links() == {name: layout.source / name for name in ("mushroom-xgboost.json", "aaaaa.json")}
    assert (layout.folder / "model-settings.json").stat().st_mode & 0o777 == 0o600


def test_native_settings_without_uri_stay_without(layout: Layout) -> None:
    layout.write({"model-settings.json": {"name": "x", "parameters": {"version": "1"}}, "model.joblib": "x"})
    assert layout.lay_out(layout.source) == {"name": MODEL_ID, "parameters": {"version": "1"}}


def test_a_native_uri_that_is_a_url_is_left_to_mlserver(layout: Layout) -> None:
    layout.write({"model-settings.json": {"parameters": {"uri": "https://models.example/m"}}})
    assert layout.lay_out(layout.source)["parameters"]["uri"] == "https://models.example/m"


def test_native_subfolders_are_linked_whole(layout: Layout) -> None:
    layout.write({"model-settings.json": {"name": "x"}, "data/part": "1", "metadata/part": "2"})
    layout.lay_out(layout.source, "mllib")
    assert layout.links() == {name: layout.source / name for name in ("data", "metadata")}


@pytest.mark.parametrize(
    ("uri", "inside"),
    [("./mnist-svm-00000000", "mnist-svm-00000000"), ("/abs", "abs"), ("../../etc/passwd", "etc/passwd")],
)
def test_a_native_uri_cannot_leave_the_model(layout: Layout, uri: str, inside: str) -> None:
    layout.write({"model-settings.json": {"parameters": {"uri": uri}}})
    assert layout.lay_out(layout.source)["parameters"]["uri"] == str(layout.folder / inside)


@pytest.mark.parametrize("native", ["{", "[]", {"parameters": 5}, {"parameters": {"uri": 5}}])
def test_unusable_native_settings_are_an_error(layout: Layout, native: Any) -> None:
    layout.write({"model-settings.json": native})
    with pytest.raises(InvalidModelError, match=r"model-settings\.json"):
        layout.lay_out(layout.source)


def test_a_missing_model_is_an_error(layout: Layout) -> None:
    with pytest.raises(InvalidModelError, match="nothing at"):
        layout.lay_out(layout.source / "absent")


TENSOR = {"name": "in", "datatype": "FP32", "shape": [-1, 64]}


def test_a_schema_adds_tensors_reduced_to_what_mlserver_reads(layout: Layout) -> None:
    layout.write(
        {"model": "x", "schema.json": {"inputs": [TENSOR | {"extra": 1}], "outputs": [TENSOR], "more": 1}}
    )
    settings = layout.lay_out(layout.source / "model", schema=layout.source / "schema.json")
    assert (settings["inputs"], settings["outputs"]) == ([TENSOR], [TENSOR])


def test_a_schema_replaces_only_what_it_speaks_of(layout: Layout) -> None:
    layout.write(
        {
            "model-settings.json": {"inputs": ["kept"], "outputs": ["gone"]},
            "schema.json": {"outputs": [TENSOR]},
        }
    )
    settings = layout.lay_out(layout.source, schema=layout.source / "schema.json")
    assert (settings["inputs"], settings["outputs"]) == (["kept"], [TENSOR])


@pytest.mark.parametrize(
    "schema", ["{", {"inputs": [{"name": "x"}]}, {"inputs": [TENSOR | {"shape": "wide"}]}]
)
def test_an_unusable_schema_is_an_error(layout: Layout, schema: Any) -> None:
    layout.write({"model": "x", "schema.json": schema})
    with pytest.raises(InvalidModelError, match=r"schema\.json"):
        layout.lay_out(layout.source / "model", schema=layout.source / "schema.json")

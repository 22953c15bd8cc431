"""How models are laid out for Triton: the original's layouts, and its crashes as clear errors."""

import json
from pathlib import Path

import pytest

from adapters.errors import InvalidModelError
from adapters.sdk import Model, Settings
from adapters.triton import TritonAdapter

MODEL_ID = "model__isvc-1"
KERAS = Path(__file__).with_name("keras_files")


class Layout:
    """Lays a source out and looks at the result."""

    def __init__(self, root: Path) -> None:
        self.source = root / "source"
        self.folder = root / "_triton_models" / MODEL_ID
        self.source.mkdir()

    def write(self, *names: str, **contents: str) -> None:
        """Makes files, and folders where a name ends with a slash."""
        for name in names:
            path = self.source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                path.mkdir(exist_ok=True)
            else:
                path.write_text(contents.get(name, ""))

    def schema(self, **sides: list[tuple[str, str, list[int]]]) -> Path:
        file = self.source.parent / "schema.json"
        described = {
            side: [{"name": n, "datatype": d, "shape": s} for n, d, s in tensors]
            for side, tensors in sides.items()
        }
        file.write_text(json.dumps(described))
        return file

    def lay_out(
        self, model_type: str, path: str = "", *, schema: Path | None = None, model_id: str = MODEL_ID
    ) -> None:
        self.folder.mkdir(parents=True)
        adapter = TritonAdapter.__new__(TritonAdapter)
        adapter.lay_out(Model(model_id, model_type, self.source / path, schema), self.folder)

    def links(self) -> dict[str, str]:
        found = {}
        for path in self.folder.rglob("*"):
            if path.is_symlink():
                target = path.readlink().relative_to(self.source)
                found[str(path.relative_to(self.folder))] = str(target)
        return found

    @property
    def config(self) -> str:
        return (self.folder / "config.pbtxt").read_text()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


SAVED = ("saved_model.pb", "variables/x")


@pytest.mark.parametrize(
    ("model_type", "files", "path", "link", "target"),
    [
        ("unknown", ["model.data"], "model.data", "1/model.data", "model.data"),
        ("unknown", ["m/model.data"], "m", "1", "m"),
        ("unknown", ["m/a", "m/b/c"], "m", "1", "m"),
        ("unknown", ["m/1/x", "m/3/x"], "m", "3", "m/3"),
        ("unknown", ["m/2/x"], "m/2", "1", "m/2"),
        ("tensorflow", ["m/"], "m", "1/model.savedmodel", "m"),
        ("tensorflow", ["m/1/model.savedmodel/a"], "m", "1/model.savedmodel", "m/1/model.savedmodel"),
        ("tensorflow", ["m/saved_model.pb"], "m", "1/model.graphdef", "m/saved_model.pb"),
        ("tensorflow", [f"m/{name}" for name in SAVED], "m", "1/model.savedmodel", "m"),
        ("tensorflow", [f"m/saved_model/{n}" for n in SAVED], "m", "1/model.savedmodel", "m/saved_model"),
        ("tensorflow", ["m/1/saved_model.pb"], "m", "1/model.graphdef", "m/1/saved_model.pb"),
        ("tensorflow", [f"m/2/{name}" for name in SAVED], "m", "2/model.savedmodel", "m/2"),
        ("tensorflow", ["m/1/x", "m/NAN/x"], "m", "1/model.savedmodel", "m"),
        ("tensorflow", ["m/1/a", "m/2/a", "m/5/a", "m/5/b"], "m", "5/model.savedmodel", "m/5"),
        (
            "tensorflow",
            ["m/2/a", "m/14/saved_model_14.pb", "m/14/v/x"],
            "m",
            "14/model.savedmodel",
            "m/14",
        ),
        (
            "tensorflow",
            ["m/2/a", "m/14/saved_model_14.pb"],
            "m",
            "14/model.graphdef",
            "m/14/saved_model_14.pb",
        ),
        ("tensorrt", ["m/2/model_2.plan"], "m", "2/model.plan", "m/2/model_2.plan"),
        ("tensorrt", ["m/myModel/model.plan"], "m", "1", "m/myModel"),
        ("tensorrt", ["m/a", "m/b"], "m", "1", "m"),
        ("pytorch", ["m/model.plan"], "m", "1/model.pt", "m/model.plan"),
        ("pytorch", ["any.name"], "any.name", "1/model.pt", "any.name"),
        ("onnx", ["mnist.data"], "mnist.data", "1/model.onnx", "mnist.data"),
        ("onnx", ["m/1/model.onnx/model"], "m", "1/model.onnx", "m/1/model.onnx"),
        ("onnx", ["m/model.x", "m/variables/x"], "m", "1/model.onnx", "m"),
        ("onnx", ["m/_schema.json", "m/net.onnx"], "m", "1/model.onnx", "m/net.onnx"),
        ("keras", [f"m/{name}" for name in SAVED], "m", "1/model.savedmodel", "m"),
        ("xgboost", ["xgboost.json"], "xgboost.json", "1/xgboost.json", "xgboost.json"),
        ("onnx", ["m/007/net.onnx"], "m", "007/model.onnx", "m/007/net.onnx"),
        ("onnx", ["m/0/net.onnx", "m/-1/net.onnx"], "m", "1/model.onnx", "m"),
    ],
)
def test_files_are_linked_under_the_names_that_triton_knows(
    layout: Layout, model_type: str, files: list[str], path: str, link: str, target: str
) -> None:
    layout.write(*files)
    layout.lay_out(model_type, path)
    assert layout.links() == {link: target}
    assert not (layout.folder / "config.pbtxt").exists()


def test_a_linked_folder_is_no_version(layout: Layout) -> None:
    layout.write("elsewhere/net.onnx", "m/a.onnx", "m/b")
    (layout.source / "m" / "3").symlink_to(layout.source / "elsewhere")
    layout.lay_out("onnx", "m")
    assert layout.links() == {"1/model.onnx": "m"}


# ---------------------------------------------------------------- configurations


NATIVE = """\
# written by hand
name: "someone-elses-name"
platform: "tensorflow_graphdef"
input [
  { name: "old", data_type: TYPE_FP32, dims: [ 3 ] }
]
output { name: "OUT"  data_type: TYPE_INT64  dims: 1 }
a_field_newer_than_any_schema { name: "kept" }
"""


def test_a_native_repository_keeps_all_but_its_name(layout: Layout) -> None:
    layout.write("m/config.pbtxt", "m/1/model.pt", "m/labels.txt", **{"m/config.pbtxt": NATIVE})
    (layout.source / "m" / "config.pbtxt").chmod(0o640)
    layout.lay_out("pytorch", "m")
    assert layout.links() == {"1": "m/1", "labels.txt": "m/labels.txt"}
    assert layout.config == NATIVE.replace('name: "someone-elses-name"\n', "")
    assert (layout.folder / "config.pbtxt").stat().st_mode & 0o777 == 0o640
    assert (layout.source / "m" / "config.pbtxt").read_text() == NATIVE


def test_a_schema_replaces_only_the_tensors_that_it_describes(layout: Layout) -> None:
    layout.write("m/config.pbtxt", "m/1/model.graphdef", **{"m/config.pbtxt": NATIVE})
    layout.lay_out("tensorflow", "m", schema=layout.schema(inputs=[("new", "FP32", [-1, 4])]))
    config = layout.config
    assert '"old"' not in config
    assert config.endswith('input {\n  name: "new"\n  data_type: TYPE_FP32\n  dims: -1\n  dims: 4\n}\n')
    assert 'output { name: "OUT"  data_type: TYPE_INT64  dims: 1 }' in config
    assert "a_field_newer_than_any_schema" in config


def test_with_a_max_batch_size_the_batch_is_tritons(layout: Layout) -> None:
    layout.write("m/config.pbtxt", **{"m/config.pbtxt": "max_batch_size: 100"})
    schema = layout.schema(
        inputs=[("a", "FP32", [-1, 64, 64]), ("b", "INT64", [-1, 1])], outputs=[("c", "FP32", [-1, 10])]
    )
    layout.lay_out("pytorch", "m", schema=schema)
    dims = [line.strip() for line in layout.config.splitlines() if "dims" in line]
    assert dims == ["dims: 64", "dims: 64", "dims: 1", "dims: 10"]


@pytest.mark.parametrize("shape", [[], [64, 64], [0, 1]])
def test_with_a_max_batch_size_a_tensor_without_a_batch_is_refused(layout: Layout, shape: list[int]) -> None:
    layout.write("m/config.pbtxt", **{"m/config.pbtxt": "max_batch_size: 8"})
    with pytest.raises(InvalidModelError, match=r"tensor a has shape .* as the first dimension, -1"):
        layout.lay_out("onnx", "m", schema=layout.schema(inputs=[("a", "FP32", shape)]))


def test_a_batch_of_scalars_has_a_dimension_that_triton_accepts(layout: Layout) -> None:
    layout.write("m/config.pbtxt", **{"m/config.pbtxt": "max_batch_size: 8"})
    layout.lay_out("onnx", "m", schema=layout.schema(inputs=[("a", "FP32", [-1])]))
    assert "  dims: 1\n  reshape { }\n" in layout.config


@pytest.mark.parametrize(
    ("datatype", "expected"),
    [("BYTES", "TYPE_STRING"), ("STRING", "TYPE_STRING"), ("BF16", "TYPE_BF16"), ("fp16", "TYPE_FP16")],
)
def test_every_datatype_has_a_name_in_triton(layout: Layout, datatype: str, expected: str) -> None:
    layout.write("net")
    layout.lay_out("onnx", "net", schema=layout.schema(inputs=[("a", datatype, [1])]))
    assert f"data_type: {expected}\n" in layout.config


def test_an_unknown_datatype_is_refused_by_name(layout: Layout) -> None:
    layout.write("net")
    with pytest.raises(InvalidModelError, match="tensor a of the schema has datatype FLOAT; known are BF16"):
        layout.lay_out("onnx", "net", schema=layout.schema(inputs=[("a", "FLOAT", [1])]))


@pytest.mark.parametrize(
    ("model_type", "backend"),
    [("onnx", "onnxruntime"), ("pytorch", "pytorch"), ("tensorflow", "tensorflow"), ("tensorrt", "tensorrt")],
)
def test_an_empty_schema_gives_a_configuration_with_the_backend_only(
    layout: Layout, model_type: str, backend: str
) -> None:
    layout.write("net")
    layout.lay_out(model_type, "net", schema=layout.schema())
    assert layout.config == f'backend: "{backend}"\n'
    assert (layout.folder / "config.pbtxt").stat().st_mode & 0o777 == 0o644


def test_names_of_tensors_are_quoted(layout: Layout) -> None:
    layout.write("net")
    layout.lay_out("onnx", "net", schema=layout.schema(inputs=[('a"\n', "FP32", [1])]))
    assert 'name: "a\\"\\n"' in layout.config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('name: "x', "line 1: a quoted text does not end"),
        ("input [\n{ name: 1 }", "line 1: \\[ is never closed"),
        ("a: 1\n} b: 2", "line 2: } stands where a field's name should"),
        ("input { name: 1 ]", "line 1: \\] closes what it did not open"),
        ("name", "line 1: the last field has no value"),
        ("a b: 1", "line 1: b stands where a value should"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_refused_with_the_line(
    layout: Layout, config: str, message: str
) -> None:
    layout.write("m/config.pbtxt", **{"m/config.pbtxt": config})
    with pytest.raises(InvalidModelError, match=f"config.pbtxt cannot be read: {message}"):
        layout.lay_out("onnx", "m")


# ---------------------------------------------------------------- what cannot be laid out


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("embedding.h5", "cannot be converted to ONNX: layer words is a Embedding, which is not converted"),
        ("only.weights.h5", "cannot be converted to ONNX: it has weights only"),
        ("cut.h5", "cannot be converted to ONNX: it cannot be read as a Keras model: "),
        ("new.keras", "is no HDF5 file of Keras"),
    ],
)
def test_a_keras_file_that_cannot_be_converted_is_refused_with_what_to_do(
    layout: Layout, file: str, reason: str
) -> None:
    content = (KERAS / file.replace("cut", "images-3")).read_bytes()
    (layout.source / file).write_bytes(content[:20_000] if file == "cut.h5" else content)
    with pytest.raises(InvalidModelError) as raised:
        layout.lay_out("keras", file)
    assert str(raised.value).startswith(f"{file} {reason}")
    assert str(raised.value).endswith('SavedModel (model.export("FOLDER")) or as ONNX')


@pytest.mark.parametrize("path", ["images-2.h5", "folder"])
def test_a_keras_file_becomes_onnx_beside_its_original(layout: Layout, path: str) -> None:
    content = (KERAS / "images-2.h5").read_bytes()
    file = layout.source / path if path.endswith(".h5") else layout.source / path / "images-2.h5"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    layout.lay_out("keras", path, schema=layout.schema(inputs=[("input_1", "FP32", [-1, 12, 12, 2])]))
    assert (layout.folder / "1" / "model.onnx").stat().st_size > 1000
    assert layout.config.startswith('backend: "onnxruntime"\n')
    assert file.read_bytes() == content


@pytest.mark.parametrize("value", ["4", "garbage"])
async def test_the_originals_bound_on_conversions_of_keras_has_no_effect(tmp_path: Path, value: str) -> None:
    variables = {
        "CONTAINER_MEM_REQ_BYTES": str(1 << 30),
        "MAX_CONC_KERAS_CONV_PROCS": value,
        "ROOT_MODEL_DIR": str(tmp_path),
    }
    settings = Settings.from_environment(variables, size_multiplier=1.25, server_port=8001)
    await TritonAdapter(settings).close()


def test_nothing_at_the_path_is_said(layout: Layout) -> None:
    with pytest.raises(InvalidModelError, match="there is nothing at"):
        layout.lay_out("onnx", "absent")


def test_an_id_that_is_no_folder_name_is_refused(layout: Layout) -> None:
    layout.write("net")
    with pytest.raises(InvalidModelError, match="rename it"):
        layout.lay_out("onnx", "net", model_id="a/b")

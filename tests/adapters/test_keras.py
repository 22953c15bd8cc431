"""What of Keras is not converted, and says so; what is, is asked of a real Triton in test_triton_e2e.py."""

import errno
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from adapters.keras.__main__ import write_onnx
from adapters.keras.errors import ConversionError
from adapters.keras.memory import free_bytes
from api.proto import onnx_pb2 as onnx

FILES = Path(__file__).with_name("keras_files")
INPUT = {"class_name": "InputLayer", "config": {"name": "in", "batch_shape": [None, 4, 4, 1]}}


def saved(folder: Path, layers: list[Any], kind: str = "Sequential", **config: Any) -> Path:
    """A file with these layers, without weights."""
    file = folder / "model.h5"
    with h5py.File(file, "w") as content:
        model = {"class_name": kind, "config": {"layers": layers, **config}}
        content.attrs["model_config"] = json.dumps(model)
    return file


def converted(file: Path, room: int | None = None) -> bytes:
    out = io.BytesIO()
    write_onnx(file, out, room)
    return out.getvalue()


def dense(file: Path, layers: int, units: int) -> Path:
    """A file of dense layers, with weights."""
    described = [{"class_name": "InputLayer", "config": {"name": "in", "batch_shape": [None, units]}}]
    described += [{"class_name": "Dense", "config": {"name": f"dense_{n}"}} for n in range(layers)]
    with h5py.File(file, "w") as content:
        model = {"class_name": "Sequential", "config": {"layers": described}}
        content.attrs["model_config"] = json.dumps(model)
        for number in range(layers):
            group = content.create_group(f"model_weights/dense_{number}")
            group.attrs["weight_names"] = ["kernel"]
            group["kernel"] = np.full((units, units), number, "<f4")
    return file


def layer(kind: str, **settings: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": "x", **settings}}


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (layer("LSTM"), "layer x is a LSTM, which is not converted"),
        (layer("Functional"), "layer x is a Functional, which is not converted"),
        (layer("MaxPooling2D", data_format="channels_first"), "layer x has data_format channels_first"),
        (layer("MaxPooling2D", padding="causal"), "layer x has padding causal"),
        (layer("Activation", activation="mish"), "layer x has activation mish"),
        (layer("ReLU", threshold=0.5), "layer x has threshold 0.5"),
        (layer("BatchNormalization", axis=1), "layer x normalizes axis 1, and only the last is converted"),
        (layer("Dense"), "layer x, a Dense, is not understood: not enough values"),
        (layer("Dense", quantization_mode="int8"), "layer x has quantization_mode int8"),
        (layer("Reshape"), "layer x, a Reshape, is not understood: 'target_shape'"),
    ],
)
def test_a_layer_that_is_not_converted_is_named(
    tmp_path: Path, described: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConversionError) as raised:
        converted(saved(tmp_path, [INPUT, described]))
    assert str(raised.value).startswith(message)


def test_statistics_of_a_renormalization_are_not_taken_for_those_of_a_normalization(tmp_path: Path) -> None:
    file = saved(tmp_path, [INPUT, layer("BatchNormalization", renorm=True)])
    with h5py.File(file, "a") as content:
        group = content.create_group("model_weights/x")
        group.attrs["weight_names"] = [f"w{number}" for number in range(6)]
        for name in group.attrs["weight_names"]:
            group[name] = np.ones(1, "<f4")
    with pytest.raises(ConversionError, match="layer x has more weights than"):
        converted(file)


def test_a_layer_that_nothing_feeds_is_named(tmp_path: Path) -> None:
    alone = layer("Dropout") | {"name": "x", "inbound_nodes": []}
    with pytest.raises(ConversionError, match="layer x, a Dropout, is not understood"):
        converted(saved(tmp_path, [alone], "Functional", input_layers=[], output_layers=[["x", 0, 0]]))


def test_integers_are_no_input(tmp_path: Path) -> None:
    words = {"class_name": "InputLayer", "config": {"name": "in", "batch_shape": [None, 4], "dtype": "int32"}}
    with pytest.raises(ConversionError, match="layer in has dtype int32"):
        converted(saved(tmp_path, [words]))


def test_a_layer_that_is_used_twice_is_named(tmp_path: Path) -> None:
    used = INPUT | {"name": "in", "inbound_nodes": [[], []]}
    with pytest.raises(ConversionError, match="layer in is used more than once"):
        converted(saved(tmp_path, [used], "Functional", input_layers=[], output_layers=[]))


def test_layers_in_a_circle_are_named(tmp_path: Path) -> None:
    layers = [
        layer("Dropout") | {"name": name, "inbound_nodes": [[[other, 0, 0, {}]]]}
        for name, other in (("a", "b"), ("b", "a"))
    ]
    with pytest.raises(ConversionError, match="layers feed each other in a circle: a, b"):
        converted(saved(tmp_path, layers, "Functional", input_layers=[], output_layers=[["a", 0, 0]]))


def test_a_model_of_a_class_of_its_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="a model of the class Mine is not converted"):
        converted(saved(tmp_path, [], "Mine"))


def test_a_result_that_cannot_be_written_is_no_fault_of_the_file(tmp_path: Path) -> None:
    result = tmp_path / "absent" / "model.onnx"
    command = [sys.executable, "-m", "adapters.keras", str(FILES / "images-3.h5"), str(result)]
    assert subprocess.run(command, check=False).returncode == errno.ENOENT


def test_a_conversion_has_one_layer_in_memory_and_writes_all(tmp_path: Path) -> None:
    file, result = dense(tmp_path / "m.h5", layers=12, units=1024), tmp_path / "model.onnx"  # 4 MiB each
    code = """
import resource, sys
from adapters.keras.__main__ import main
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
main(*sys.argv[1:])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    command = [sys.executable, "-c", code, str(file), str(result)]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown <= 5 * 4 + 8  # the copies that are counted on, and what reading takes
    written = onnx.ModelProto.FromString(result.read_bytes()).graph
    assert [np.frombuffer(each.raw_data, "<f4").mean() for each in written.initializer] == [*range(12)]
    assert len({each.name for each in written.initializer}) == 12


def test_a_layer_for_which_memory_is_short_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = dense(tmp_path / "m.h5", layers=2, units=1024)
    assert converted(file, 20 << 20)
    with pytest.raises(ConversionError, match=r"dense_\d has 4 MiB .* takes 20 MiB, .* has 19 MiB left"):
        converted(file, (20 << 20) - 1)


@pytest.mark.parametrize(
    ("limit", "stat", "free"),
    [
        ("536870912\n", "anon 36870912\nfile 400000000\n", 500_000_000),
        ("1000\n", "anon 2000\n", 0),
        ("max\n", "anon 1\n", None),
        (None, "anon 1\n", None),
    ],
)
def test_the_memory_that_is_left_is_the_containers(
    tmp_path: Path, limit: str | None, stat: str, free: int | None
) -> None:
    if limit:
        (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.stat").write_text(stat)
    assert free_bytes(tmp_path) == free


def test_weights_that_were_cut_off_are_refused_by_their_layer(tmp_path: Path) -> None:
    file = dense(tmp_path / "m.h5", layers=2, units=256)
    size = file.stat().st_size
    with h5py.File(file) as content:
        offset = content["model_weights/dense_1/kernel"].id.get_offset()
    content_ = bytearray(file.read_bytes())
    del content_[offset + 1000 :]
    assert len(content_) < size
    file.write_bytes(content_)
    with pytest.raises(ConversionError, match="cannot be read"):
        converted(file)

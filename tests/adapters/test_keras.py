"""What of Keras is not converted, and says so; what is, is asked of a real Triton in test_triton_e2e.py."""

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import pytest

from adapters.keras.__main__ import converted
from adapters.keras.errors import ConversionError

FILES = Path(__file__).with_name("keras_files")
INPUT = {"class_name": "InputLayer", "config": {"name": "in", "batch_shape": [None, 4, 4, 1]}}


def saved(folder: Path, layers: list[Any], kind: str = "Sequential", **config: Any) -> Path:
    """A file with these layers, without weights."""
    file = folder / "model.h5"
    with h5py.File(file, "w") as content:
        model = {"class_name": kind, "config": {"layers": layers, **config}}
        content.attrs["model_config"] = json.dumps(model)
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
        (layer("Reshape"), "layer x, a Reshape, is not understood: 'target_shape'"),
    ],
)
def test_a_layer_that_is_not_converted_is_named(
    tmp_path: Path, described: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConversionError) as raised:
        converted(saved(tmp_path, [INPUT, described]))
    assert str(raised.value).startswith(message)


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

# mypy: disable-error-code="import-not-found"
"""Writes the network of `train.py` for other servers: as ONNX, as OpenVINO IR, and by Keras.

    python convert.py WEIGHTS FOLDER

writes below FOLDER, with the tensors of the original's samples:

    onnx/mnist.onnx                          a picture `Input3`, 1 by 28 by 28, to ten scores
    openvino/mnist/mnist.xml, mnist.bin      the same
    keras/mnist.h5                           a picture `conv2d_input`, 28 by 28 by 1, to ten probabilities
"""

import os
import sys
from pathlib import Path

# Keras trains nothing here; of its back ends this is the one that is there anyway.
os.environ["KERAS_BACKEND"] = "openvino"

import keras
import numpy as np
import onnx
import openvino
from onnx import TensorProto, helper, numpy_helper


def network(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Return the graph: picture of shape (1, 1, 28, 28) to scores of shape (1, 10)."""
    constants = {**weights, "flat": np.array([1, 784], dtype=np.int64)}
    nodes = [
        helper.make_node("Reshape", ["Input3", "flat"], ["pixels"]),
        helper.make_node("Gemm", ["pixels", "w1", "b1"], ["sums"]),
        helper.make_node("Relu", ["sums"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "w2", "b2"], ["Plus214_Output_0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "mnist",
        [helper.make_tensor_value_info("Input3", TensorProto.FLOAT, [1, 1, 28, 28])],
        [helper.make_tensor_value_info("Plus214_Output_0", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    # Versions that onnxruntime and OpenVINO of the last years read.
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model, full_check=True)
    return model


def keras_network(weights: dict[str, np.ndarray]) -> keras.Model:
    """Return the same network as Keras' own object."""
    layers = [
        keras.layers.InputLayer(shape=(28, 28, 1), name="conv2d_input"),
        keras.layers.Flatten(name="flatten"),
        keras.layers.Dense(64, activation="relu", name="dense"),
        keras.layers.Dense(10, activation="softmax", name="dense_1"),
    ]
    model = keras.Sequential(layers, name="mnist")
    model.set_weights([weights[name] for name in ("w1", "b1", "w2", "b2")])
    return model


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    for name in ("keras", "onnx", "openvino/mnist"):
        (target / name).mkdir(parents=True, exist_ok=True)
    weights = dict(np.load(source))
    keras_network(weights).save(target / "keras" / "mnist.h5")
    onnx.save(network(weights), target / "onnx" / "mnist.onnx")
    converted = openvino.convert_model(target / "onnx" / "mnist.onnx")
    openvino.save_model(converted, target / "openvino" / "mnist" / "mnist.xml", compress_to_fp16=False)

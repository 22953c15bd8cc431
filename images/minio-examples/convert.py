# mypy: disable-error-code="import-not-found"
"""Writes the network of `train.py` as ONNX and as OpenVINO IR.

    python convert.py WEIGHTS FOLDER

writes below FOLDER, with the names of the original's samples (a 28-by-28 picture `Input3` to ten scores):

    onnx/mnist.onnx
    openvino/mnist/mnist.xml, mnist.bin
"""

import sys
from pathlib import Path

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


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    for name in ("onnx", "openvino/mnist"):
        (target / name).mkdir(parents=True, exist_ok=True)
    onnx.save(network(dict(np.load(source))), target / "onnx" / "mnist.onnx")
    converted = openvino.convert_model(target / "onnx" / "mnist.onnx")
    openvino.save_model(converted, target / "openvino" / "mnist" / "mnist.xml", compress_to_fp16=False)

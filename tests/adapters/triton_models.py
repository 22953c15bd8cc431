"""Small models for Triton: what is put into the bucket, by key."""

import base64

# y = relu(x @ w), w = 0 to 11 as 4 by 3, any number of rows. Made by `onnx.helper`, IR version 8, opset 17.
RELU_ONNX = base64.b64decode(
    "CAg6lQEKEQoBeAoBdxIBaCIGTWF0TXVsCgwKAWgSAXkiBFJlbHUSAWcqOwgECAMQAUIBd0owAAAAAAAAgD8AAABAAABAQAAAgEAAAKBAAADA"
    "QAAA4EAAAABBAAAQQQAAIEEAADBBWhgKAXgSEwoRCAESDQoHEgViYXRjaAoCCARiGAoBeRITChEIARINCgcSBWJhdGNoCgIIA0IECgAQEQ=="
)

UPPER_CONFIG = b"""\
name: "the name of its author"
backend: "python"
max_batch_size: 8
input { name: "text"  data_type: TYPE_STRING  dims: 1 }
output { name: "upper"  data_type: TYPE_STRING  dims: 1 }
instance_group { kind: KIND_CPU  count: 1 }
"""

UPPER_MODEL = b"""\
import numpy
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            texts = pb_utils.get_input_tensor_by_name(request, "text").as_numpy()
            upper = numpy.array([text.upper() for text in texts.ravel()], dtype=object).reshape(texts.shape)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("upper", upper)]))
        return answers
"""

SLOW_MODEL = (
    UPPER_MODEL
    + b"""
    def initialize(self, args):
        import time

        time.sleep(3)
"""
)

OBJECTS = {
    "onnx/relu.onnx": RELU_ONNX,
    "onnx/corrupt.onnx": b"this is no ONNX",
    "versions/1/relu.onnx": b"an old one",
    "versions/7/relu.onnx": RELU_ONNX,
    "python/upper/config.pbtxt": UPPER_CONFIG,
    "python/upper/1/model.py": UPPER_MODEL,
    "python/slow/config.pbtxt": UPPER_CONFIG,
    "python/slow/1/model.py": SLOW_MODEL,
    "python/broken/config.pbtxt": b"name: [",
    "python/broken/1/model.py": UPPER_MODEL,
    "schema.json": b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],'
    b' "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]}',
}

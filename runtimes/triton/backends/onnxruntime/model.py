"""ONNX models in Triton by the onnxruntime wheel: a Python-based backend under the native one's name.

NVIDIA's image brings the native backend; the Triton that runs on a laptop without containers has none. Both
serve the same repositories. Triton loads this file into one process for each model instance.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnxruntime
import triton_python_backend_utils as pb_utils

# Types as onnxruntime names them, to those of Triton's configuration.
_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}


class TritonPythonModel:
    """One instance of one model."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Adds the model's own inputs and outputs where the configuration has none.

        Dimensions are given whole, with the batch as one of them: the batch size that Triton's scheduler may
        use stays 0, as an ONNX file does not say which of its dimensions is the batch.
        """
        given = config.as_dict()
        session = _session(given.get("default_model_filename"))
        if not given.get("input"):
            for tensor in session.get_inputs():
                config.add_input(_description(tensor))
        if not given.get("output"):
            for tensor in session.get_outputs():
                config.add_output(_description(tensor))
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Opens the model."""
        config = json.loads(args["model_config"])
        self._session = _session(config.get("default_model_filename"))
        self._dtypes = {
            output["name"]: pb_utils.triton_string_to_numpy(output["data_type"])
            for output in config["output"]
        }

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers requests one by one."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        names = list(request.requested_output_names())
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        try:
            outputs = self._session.run(names, inputs)
        except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no base; the client is told each
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"onnxruntime: {error}"))
        return pb_utils.InferenceResponse(
            output_tensors=[
                pb_utils.Tensor(name, output.astype(self._dtypes[name], copy=False))
                for name, output in zip(names, outputs, strict=True)
            ],
        )


def _session(file_name: str | None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # One thread for a request: on a shared machine, a pool as large as the processor starves the neighbours.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    folder = Path(pb_utils.get_model_dir())
    file = folder / (file_name or "model.onnx")
    if file.is_dir():
        file = next(iter(sorted(file.glob("*.onnx"))), file / "model.onnx")
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _description(tensor: Any) -> dict[str, Any]:
    if tensor.type not in _TYPES:
        raise pb_utils.TritonModelException(
            f"tensor {tensor.name} has type {tensor.type}, which Triton has not"
        )
    dims = [size if isinstance(size, int) else -1 for size in tensor.shape]
    return {"name": tensor.name, "data_type": _TYPES[tensor.type], "dims": dims or [1]}

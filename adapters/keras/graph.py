"""Writing a graph of ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from api.proto import onnx_pb2 as onnx

if TYPE_CHECKING:
    from collections.abc import Sequence

# onnxruntime has read both since 2021.
_IR_VERSION, _OPSET = 7, 13


class Graph:
    """Nodes and constants under construction; values are known by their names.

    Constants go to `out` at once, so that no more than one of them is in memory: parts of a message that
    follow each other are the message.
    """

    def __init__(self, name: str, out: BinaryIO) -> None:
        self._out = out
        self._constants = 0
        self._model = onnx.ModelProto(ir_version=_IR_VERSION, producer_name="modelmesh")
        self._model.opset_import.add(domain="", version=_OPSET)
        self._graph = self._model.graph
        self._graph.name = name

    def input(self, name: str, shape: Sequence[int | None]) -> str:
        """An input; None is a dimension of any length."""
        tensor = self._graph.input.add(name=name).type.tensor_type
        tensor.elem_type = onnx.TensorProto.FLOAT
        for index, size in enumerate(shape):
            if size is None:
                tensor.shape.dim.add(dim_param="batch" if index == 0 else f"{name}_{index}")
            else:
                tensor.shape.dim.add(dim_value=size)
        return name

    def output(self, name: str, value: str) -> None:
        """An output, of the shape that ONNX infers."""
        self._graph.node.add(op_type="Identity", input=[value], output=[name], name=f"output {name}")
        self._graph.output.add(name=name).type.tensor_type.elem_type = onnx.TensorProto.FLOAT

    def constant(self, value: np.ndarray | Sequence[int] | float) -> str:
        """A constant: FP32, or INT64 where it is a list of whole numbers."""
        whole = isinstance(value, list | tuple)
        array = np.asarray(value, "<i8" if whole else "<f4")
        name = f"constant {self._constants}"
        self._constants += 1
        kind = onnx.TensorProto.INT64 if whole else onnx.TensorProto.FLOAT
        part = onnx.ModelProto()
        part.graph.initializer.add(name=name, dims=array.shape, data_type=kind, raw_data=array.tobytes())
        self._out.write(part.SerializeToString())
        return name

    def node(self, kind: str, *inputs: str, **attributes: float | str | Sequence[int]) -> str:
        """A node with one result, whose name is returned."""
        result = f"value {len(self._graph.node)}"
        node = self._graph.node.add(op_type=kind, input=inputs, output=[result], name=f"{kind} of {result}")
        for name, value in attributes.items():
            match value:
                case int():
                    node.attribute.add(name=name, i=value, type=onnx.AttributeProto.INT)
                case float():
                    node.attribute.add(name=name, f=value, type=onnx.AttributeProto.FLOAT)
                case str():
                    node.attribute.add(name=name, s=value.encode(), type=onnx.AttributeProto.STRING)
                case _:
                    node.attribute.add(name=name, ints=value, type=onnx.AttributeProto.INTS)
        return result

    def finish(self) -> None:
        """Writes all else."""
        self._out.write(self._model.SerializeToString())

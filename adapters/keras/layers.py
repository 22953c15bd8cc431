"""What each layer of Keras computes, in ONNX.

A layer's function gets the graph, the layer and the names of its inputs, and returns the name of its result.
Images are `[batch, height, width, channels]` in Keras and `[batch, channels, height, width]` in ONNX; each
layer that minds turns them there and back, which onnxruntime takes out again where it can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from adapters.keras.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from adapters.keras.graph import Graph
    from adapters.keras.model import Layer

    Convert = Callable[[Graph, Layer, Sequence[str]], str]

_CHANNELS_FIRST, _CHANNELS_LAST = [0, 3, 1, 2], [0, 2, 3, 1]

_ACTIVATIONS = {
    "elu": ("Elu", {}),
    "relu": ("Relu", {}),
    "selu": ("Selu", {}),
    "sigmoid": ("Sigmoid", {}),
    "softmax": ("Softmax", {"axis": -1}),
    "softplus": ("Softplus", {}),
    "softsign": ("Softsign", {}),
    "tanh": ("Tanh", {}),
}


def convert(graph: Graph, layer: Layer, inputs: Sequence[str]) -> str:
    """Adds a layer to the graph and returns the name of its result.

    Raises:
        ConversionError: a layer, or a setting of it, that is not here.
    """
    function = _LAYERS.get(layer.kind)
    if function is None:
        raise ConversionError(f"layer {layer.name} is a {layer.kind}, which is not converted")
    layer.demand("data_format", "channels_last", None)
    return function(graph, layer, inputs)


def _same(_: Graph, __: Layer, inputs: Sequence[str]) -> str:
    """Layers that only matter in training."""
    return inputs[0]


def _dense(graph: Graph, layer: Layer, inputs: Sequence[str]) -> str:
    layer.demand("quantization_mode", None)
    kernel, *bias = layer.weights
    result = graph.node("MatMul", inputs[0], graph.constant(kernel))
    if bias:
        result = graph.node("Add", result, graph.constant(bias[0]))
    return _activated(graph, layer, result)


def _convolution(graph: Graph, layer: Layer, inputs: Sequence[str]) -> str:
    kernel, *bias = layer.weights
    dilations = layer.pair("dilation_rate", 1)
    settings: dict[str, Any] = {"dilations": dilations, "strides": layer.pair("strides", 1)} | _padding(layer)
    if dilations != [1, 1] and "auto_pad" in settings and settings["auto_pad"] != "VALID":
        layer.demand("padding", "valid")
    if layer.kind == "DepthwiseConv2D":
        height, width, channels, multiplier = kernel.shape
        weights = kernel.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
        settings["group"] = channels
    else:
        weights, settings["group"] = kernel.transpose(3, 2, 0, 1), int(layer.settings.get("groups", 1))
    turned = graph.node("Transpose", inputs[0], perm=_CHANNELS_FIRST)
    constants = [graph.constant(each) for each in (weights, *bias)]
    result = graph.node("Conv", turned, *constants, kernel_shape=list(weights.shape[2:]), **settings)
    return _activated(graph, layer, graph.node("Transpose", result, perm=_CHANNELS_LAST))


def _pooling(graph: Graph, layer: Layer, inputs: Sequence[str]) -> str:
    size = layer.pair("pool_size", 2)
    kind = "MaxPool" if layer.kind.startswith("Max") else "AveragePool"
    turned = graph.node("Transpose", inputs[0], perm=_CHANNELS_FIRST)
    strides = layer.pair("strides", size)
    result = graph.node(kind, turned, kernel_shape=size, strides=strides, **_padding(layer))
    return graph.node("Transpose", result, perm=_CHANNELS_LAST)


def _global_pooling(graph: Graph, layer: Layer, inputs: Sequence[str]) -> str:
    kind = "ReduceMax" if "Max" in layer.kind else "ReduceMean"
    kept = int(bool(layer.settings.get("keepdims", False)))
    return graph.node(kind, inputs[0], axes=[1, 2], keepdims=kept)


def _flatten(graph: Graph, _: Layer, inputs: Sequence[str]) -> str:
    return graph.node("Flatten", inputs[0], axis=1)


def _reshape(graph: Graph, layer: Layer, inputs: Sequence[str]) -> str:
    shape = [0, *(int(size) for size in layer.settings["target_shape"])]  # 0: the batch stays
    return graph.node("Reshape", inputs[0], graph.constant(shape))


def _normalization(graph: Graph, layer: Layer, inputs: Sequence[str]) -> str:
    axis = layer.settings.get("axis", -1)
    last = layer.rank - 1
    if axis not in (-1, [-1], last, [last]):
        raise ConversionError(f"layer {layer.name} normalizes axis {axis}, and only the last is converted")
    *given, mean, variance = layer.weights
    scale = given.pop(0) if layer.settings.get("scale", True) else np.ones_like(mean)
    center = given.pop(0) if layer.settings.get("center", True) else np.zeros_like(mean)
    if given:
        raise ConversionError(f"layer {layer.name} has more weights than those of a plain normalization")
    factor = scale / np.sqrt(variance + float(layer.settings.get("epsilon", 1e-3)))
    scaled = graph.node("Mul", inputs[0], graph.constant(factor))
    return graph.node("Add", scaled, graph.constant(center - mean * factor))


def _zero_padding(graph: Graph, layer: Layer, inputs: Sequence[str]) -> str:
    (top, bottom), (left, right) = layer.settings["padding"]
    return graph.node("Pad", inputs[0], graph.constant([0, top, left, 0, 0, bottom, right, 0]))


def _rescaling(graph: Graph, layer: Layer, inputs: Sequence[str]) -> str:
    scaled = graph.node("Mul", inputs[0], graph.constant(float(layer.settings["scale"])))
    return graph.node("Add", scaled, graph.constant(float(layer.settings.get("offset", 0))))


def _activation(graph: Graph, layer: Layer, inputs: Sequence[str]) -> str:
    return _activated(graph, layer, inputs[0])


def _relu(graph: Graph, layer: Layer, inputs: Sequence[str]) -> str:
    layer.demand("threshold", 0, None)
    slope = float(layer.settings.get("negative_slope") or 0)
    result = graph.node("LeakyRelu", inputs[0], alpha=slope) if slope else graph.node("Relu", inputs[0])
    most = layer.settings.get("max_value")
    return result if most is None else graph.node("Min", result, graph.constant(float(most)))


def _leaky_relu(graph: Graph, layer: Layer, inputs: Sequence[str]) -> str:
    slope = layer.settings.get("negative_slope", layer.settings.get("alpha", 0.3))
    return graph.node("LeakyRelu", inputs[0], alpha=float(slope))


def _softmax(graph: Graph, layer: Layer, inputs: Sequence[str]) -> str:
    return graph.node("Softmax", inputs[0], axis=int(layer.settings.get("axis", -1)))


def _merged(graph: Graph, layer: Layer, inputs: Sequence[str]) -> str:
    result = inputs[0]
    for other in inputs[1:]:
        result = graph.node({"Add": "Add", "Multiply": "Mul", "Subtract": "Sub"}[layer.kind], result, other)
    return result


def _several(graph: Graph, layer: Layer, inputs: Sequence[str]) -> str:
    return graph.node({"Average": "Mean", "Maximum": "Max", "Minimum": "Min"}[layer.kind], *inputs)


def _concatenated(graph: Graph, layer: Layer, inputs: Sequence[str]) -> str:
    return graph.node("Concat", *inputs, axis=int(layer.settings.get("axis", -1)))


def _padding(layer: Layer) -> dict[str, str]:
    padding = layer.settings.get("padding", "valid")
    if padding not in {"same", "valid"}:
        raise ConversionError(f"layer {layer.name} has padding {padding}, which is not converted")
    return {"auto_pad": "SAME_UPPER" if padding == "same" else "VALID"}


def _activated(graph: Graph, layer: Layer, value: str) -> str:
    name = layer.settings.get("activation") or "linear"
    if name == "linear":
        return value
    if name in {"silu", "swish"}:
        return graph.node("Mul", value, graph.node("Sigmoid", value))
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise ConversionError(f"layer {layer.name} has activation {name}, which is not converted")
    kind, attributes = _ACTIVATIONS[name]
    return graph.node(kind, value, **attributes)


_LAYERS: dict[str, Convert] = {
    "Activation": _activation,
    "ActivityRegularization": _same,
    "Add": _merged,
    "Average": _several,
    "AveragePooling2D": _pooling,
    "BatchNormalization": _normalization,
    "Concatenate": _concatenated,
    "Conv2D": _convolution,
    "Dense": _dense,
    "DepthwiseConv2D": _convolution,
    "Dropout": _same,
    "Flatten": _flatten,
    "GaussianDropout": _same,
    "GaussianNoise": _same,
    "GlobalAveragePooling2D": _global_pooling,
    "GlobalMaxPooling2D": _global_pooling,
    "LeakyReLU": _leaky_relu,
    "MaxPooling2D": _pooling,
    "Maximum": _several,
    "Minimum": _several,
    "Multiply": _merged,
    "ReLU": _relu,
    "Rescaling": _rescaling,
    "Reshape": _reshape,
    "Softmax": _softmax,
    "SpatialDropout2D": _same,
    "Subtract": _merged,
    "ZeroPadding2D": _zero_padding,
}

"""Reading a model from an HDF5 file of Keras 2 or 3."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h5py

from adapters.keras.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np

_MODELS = {"Functional", "Model", "Sequential"}


@dataclass(slots=True)
class Layer:
    """A layer: its class's name, its settings, the layers that feed it and its weights in Keras' order.

    Weights stay in the file until they are asked for. `rank` is the number of dimensions of its first input,
    the batch included; 0 until it is known.
    """

    name: str
    kind: str
    settings: dict[str, Any]
    inputs: list[str]
    stored: list[h5py.Dataset] = field(default_factory=list)
    rank: int = 0

    @property
    def weights(self) -> list[np.ndarray]:
        """The weights, read from the file."""
        try:
            return [each[()] for each in self.stored]
        except OSError as error:
            raise ConversionError(f"the weights of layer {self.name} cannot be read: {error}") from error

    @property
    def shape(self) -> list[int | None]:
        """The shape of an input layer, None where a dimension has any length."""
        shape = self.settings.get("batch_shape") or self.settings.get("batch_input_shape")
        if not shape:
            raise ConversionError(f"input {self.name} has no shape")
        return list(shape)

    @property
    def rank_after(self) -> int:
        """The number of dimensions of its result."""
        if self.kind == "Flatten":
            return 2
        if self.kind == "Reshape":
            return 1 + len(self.settings["target_shape"])
        if self.kind.startswith("Global") and not self.settings.get("keepdims"):
            return 2
        return self.rank

    def pair(self, setting: str, default: Any) -> list[int]:
        """A setting for height and width."""
        value = self.settings.get(setting)
        value = default if value is None else value
        return [value, value] if isinstance(value, int) else [int(each) for each in value]

    def demand(self, setting: str, *values: Any) -> None:
        """Refuses all other values of a setting."""
        value = self.settings.get(setting, values[0])
        if value not in values:
            raise ConversionError(f"layer {self.name} has {setting} {value}, which is not converted")


@dataclass(frozen=True, slots=True)
class Network:
    """Layers, each after those that feed it, and the names of those that are outputs."""

    layers: list[Layer]
    outputs: list[str]


@contextlib.contextmanager
def opened(file: Path) -> Iterator[Network]:
    """Reads layers; their weights can be read inside of the block.

    Raises:
        ConversionError: no HDF5 file of a whole model, or of a kind that is not converted.
    """
    with contextlib.ExitStack() as stack:
        try:
            network = _network(stack.enter_context(h5py.File(file)))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ConversionError(f"it cannot be read as a Keras model: {error}") from error
        yield network


def _network(content: h5py.File) -> Network:
    if "model_config" not in content.attrs:
        raise ConversionError("it has weights only: save the whole model, by model.save")
    model = json.loads(content.attrs["model_config"])
    if model.get("class_name") not in _MODELS:
        raise ConversionError(f"a model of the class {model.get('class_name')} is not converted")
    sequential = model["class_name"] == "Sequential"
    network = _sequential(model["config"]) if sequential else _functional(model["config"])
    weights = content.get("model_weights", content)
    for layer in network.layers:
        layer.stored = list(_stored(weights, layer.name))
    return network


def _stored(content: h5py.Group, layer: str) -> Iterator[h5py.Dataset]:
    if layer in content:
        group = content[layer]
        for name in group.attrs.get("weight_names", ()):
            yield group[name.decode() if isinstance(name, bytes) else name]


def _sequential(config: Any) -> Network:
    described = config["layers"] if isinstance(config, dict) else config
    layers: list[Layer] = []
    for each in described:
        layer = Layer(each["config"]["name"], each["class_name"], each["config"], [])
        if not layers and layer.kind != "InputLayer":
            # Keras calls the input of a first layer so.
            layers.append(Layer(f"{layer.name}_input", "InputLayer", layer.settings, []))
        if layers:
            layer.inputs.append(layers[-1].name)
        layers.append(layer)
    return Network(layers, [layers[-1].name])


def _functional(config: Any) -> Network:
    waiting = {}
    for each in config["layers"]:
        if len(each["inbound_nodes"]) > 1:
            raise ConversionError(f"layer {each['name']} is used more than once, which is not converted")
        inputs = [name for node in each["inbound_nodes"] for name in _sources(node)]
        waiting[each["name"]] = Layer(each["name"], each["class_name"], each["config"], inputs)
    layers: dict[str, Layer] = {}
    while waiting:
        fed = [layer for layer in waiting.values() if layers.keys() >= set(layer.inputs)]
        if not fed:
            raise ConversionError(f"layers feed each other in a circle: {', '.join(waiting)}")
        for layer in fed:
            layers[layer.name] = waiting.pop(layer.name)
    return Network(list(layers.values()), list(_sources(config["output_layers"])))


def _sources(node: Any) -> Iterator[str]:
    """Names of layers in the forms of Keras 2 (lists that begin with name and index) and 3 (objects)."""
    match node:
        case {"keras_history": [str(name), *_]} | [str(name), int(), int(), *_]:
            yield name
        case dict():
            for each in node.values():
                yield from _sources(each)
        case list():
            for each in node:
                yield from _sources(each)

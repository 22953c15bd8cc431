"""The program: `python -m adapters.keras FILE RESULT`; what is wrong is said in one line, with status 1.

Where the result cannot be written, the status is the error's number.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from adapters.keras.errors import ConversionError
from adapters.keras.graph import Graph
from adapters.keras.layers import convert
from adapters.keras.memory import free_bytes
from adapters.keras.model import opened

if TYPE_CHECKING:
    from adapters.keras.model import Network

# Of the weights of a layer: as read, turned, as text and as message, which is written.
_COPIES = 5


def write_onnx(file: Path, out: BinaryIO, room: int | None = None) -> None:
    """Writes the file's model as ONNX; inputs and outputs are called as their layers.

    `room` is the memory that there is, in bytes; None where nothing bounds it.

    Raises:
        ConversionError: says what is in the way.
        OSError: the result cannot be written.
    """
    with opened(file) as network:
        _check_memory(network, room)
        _write(network, Graph(file.stem, out))


def _check_memory(network: Network, room: int | None) -> None:
    """Refuses what would have the kernel end the adapter, and any other pod after it that tries."""
    sizes = [(sum(each.nbytes for each in layer.stored), layer.name) for layer in network.layers]
    size, name = max(sizes, default=(0, ""))
    if room is not None and size * _COPIES > room:
        raise ConversionError(
            f"layer {name} has {size >> 20} MiB of weights, which takes {size * _COPIES >> 20} MiB, "
            f"and the adapter's container has {room >> 20} MiB left (storageHelperResources.limits.memory)"
        )


def _write(network: Network, graph: Graph) -> None:
    values: dict[str, str] = {}
    ranks: dict[str, int] = {}
    for layer in network.layers:
        if layer.kind == "InputLayer":
            layer.demand("dtype", "float32", None)
            values[layer.name] = graph.input(layer.name, layer.shape)
            ranks[layer.name] = len(layer.shape)
            continue
        try:
            layer.rank = ranks[layer.inputs[0]]
            values[layer.name] = convert(graph, layer, [values[name] for name in layer.inputs])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ConversionError(
                f"layer {layer.name}, a {layer.kind}, is not understood: {error}"
            ) from error
        ranks[layer.name] = layer.rank_after
    for name in network.outputs:
        graph.output(name, values[name])
    graph.finish()


def main(file: str, result: str) -> None:
    """Converts; see the module."""
    try:
        with Path(result).open("wb") as out:
            write_onnx(Path(file), out, free_bytes())
    except ConversionError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(error.errno)


if __name__ == "__main__":
    main(*sys.argv[1:])

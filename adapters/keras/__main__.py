"""The program: `python -m adapters.keras FILE RESULT`; what is wrong is said in one line, with status 1.

Where the result cannot be written, the status is the error's number.
"""

import sys
from pathlib import Path

from adapters.keras.errors import ConversionError
from adapters.keras.graph import Graph
from adapters.keras.layers import convert
from adapters.keras.model import read


def converted(file: Path) -> bytes:
    """The file's model as ONNX; inputs and outputs are called as their layers.

    Raises:
        ConversionError: says what is in the way.
    """
    network = read(file)
    graph = Graph(file.stem)
    values: dict[str, str] = {}
    ranks: dict[str, int] = {}
    for layer in network.layers:
        if layer.kind == "InputLayer":
            layer.demand("dtype", "float32", None)
            values[layer.name] = graph.input(layer.name, layer.shape)
            ranks[layer.name] = len(layer.shape)
            continue
        layer.rank = ranks[layer.inputs[0]]
        try:
            values[layer.name] = convert(graph, layer, [values[name] for name in layer.inputs])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ConversionError(
                f"layer {layer.name}, a {layer.kind}, is not understood: {error}"
            ) from error
        ranks[layer.name] = layer.rank_after
    for name in network.outputs:
        graph.output(name, values[name])
    return graph.content()


def main(file: str, result: str) -> None:
    """Converts; see the module."""
    try:
        Path(result).write_bytes(converted(Path(file)))
    except ConversionError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(error.errno)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The adapter of NVIDIA's Triton: ONNX, TorchScript, TensorFlow, TensorRT and whatever a backend serves.

Triton wants `MODEL/VERSION/FILE`, where the file's name tells the backend, and takes a `config.pbtxt` beside
the versions. Models are linked into that form; a repository that has it already is linked as it is. Keras'
HDF5 files are converted to ONNX.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from adapters import pbtxt
from adapters.errors import InvalidModelError
from adapters.files import write_whole
from adapters.sdk import Model, V2Server
from adapters.sdk.schema import Schema, Tensor, read_schema
from adapters.versions import newest_version

_CONFIG_FILE = "config.pbtxt"
_HDF5 = b"\x89HDF\r\n\x1a\n"
# Pulled beside a model by old clients; no part of it.
_SCHEMA_FILE = "_schema.json"

_BACKENDS = {
    "keras": "tensorflow",
    "onnx": "onnxruntime",
    "pytorch": "pytorch",
    "tensorflow": "tensorflow",
    "tensorrt": "tensorrt",
}
_FILE_NAMES = {
    "onnx": "model.onnx",
    "pytorch": "model.pt",
    "tensorflow": "model.graphdef",
    "tensorrt": "model.plan",
}
# An ONNX folder holds a model with its weights in files of their own.
_FOLDER_NAMES = {"keras": "model.savedmodel", "onnx": "model.onnx", "tensorflow": "model.savedmodel"}

# V2 datatypes whose name in the configuration is not TYPE_ and the same.
_RENAMED = {"BYTES": "TYPE_STRING"}
_DATATYPES = {
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "BF16", "STRING", "BYTES"),
}


# What one conversion finds of free memory another must not take.
_converting = threading.Lock()


class TritonAdapter(V2Server):
    """Lays models out for Triton."""

    title = "Triton"
    folder_name = "_triton_models"

    def lay_out(self, model: Model, folder: Path) -> None:
        """Links the model's files under the names that Triton knows, and writes the configuration.

        A folder with a `config.pbtxt` is Triton's own form: all is linked one to one, and of the
        configuration only the name goes (Triton then takes the folder's), and the tensors that a schema
        describes anew. Else the newest version folder, or the whole, becomes one version.

        Raises:
            InvalidModelError: no such files, an id that Triton cannot have, or a configuration or schema that
                cannot be used.
        """
        if folder.name != model.id:
            raise InvalidModelError(
                f"Triton names models by their folders, and {model.id!r} is no folder's name; rename it"
            )
        if not model.path.exists():
            raise InvalidModelError(f"model {model.id}: there is nothing at {model.path}")
        schema = read_schema(model.schema) if model.schema else None
        native = model.path / _CONFIG_FILE
        if native.is_file():
            for entry in model.path.iterdir():
                if entry.name != _CONFIG_FILE:
                    (folder / entry.name).symlink_to(entry)
            config, mode = _rewritten(native, schema), native.stat().st_mode & 0o777
        else:
            backend = _link_version(model, folder)
            if schema is None:
                return
            config, mode = _generated(backend, schema), 0o644
        write_whole(folder / _CONFIG_FILE, config.encode(), mode=mode)


def _link_version(model: Model, folder: Path) -> str | None:
    """Links a file or folder as the one version that Triton is to load; returns its backend, if known."""
    version, source = "1", model.path
    if source.is_dir():
        content = _content(source)
        if (newest := newest_version(content)) is not None:
            version, source, content = newest.name, newest, _content(newest)
        if len(content) == 1 and model.type in _BACKENDS:
            source = content[0]
    if source.is_file() and model.type == "keras":
        _convert(source, folder / version / "model.onnx")
        return "onnxruntime"
    if source.is_file():
        _link(folder / version / _FILE_NAMES.get(model.type, source.name), source)
    else:
        _link(folder / version / _FOLDER_NAMES.get(model.type, ""), source)
    return _BACKENDS.get(model.type)


def _convert(file: Path, result: Path) -> None:
    """Writes a Keras file as ONNX, by a process whose memory goes with it."""
    advice = 'store the model as a SavedModel (model.export("FOLDER")) or as ONNX'
    with file.open("rb") as content:
        if content.read(len(_HDF5)) != _HDF5:
            raise InvalidModelError(
                f"{file.name} is no HDF5 file of Keras, which is what is converted; {advice}"
            )
    result.parent.mkdir(mode=0o755)
    command = [sys.executable, "-P", "-m", "adapters.keras", str(file), str(result)]
    # The packages may be on a path of their own, as in our image.
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    with _converting:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode > 1:
        raise OSError(done.returncode, os.strerror(done.returncode), str(result))
    if done.returncode < 0:
        raise InvalidModelError(
            f"the conversion of {file.name} to ONNX was ended by signal {-done.returncode}, "
            f"as where memory is short; {advice}"
        )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"its conversion ended with status {done.returncode}"]
        raise InvalidModelError(f"{file.name} cannot be converted to ONNX: {said[-1]}; {advice}")


def _content(folder: Path) -> list[Path]:
    return [entry for entry in sorted(folder.iterdir()) if entry.name != _SCHEMA_FILE]


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(mode=0o755, exist_ok=True)
    link.symlink_to(target)


def _generated(backend: str | None, schema: Schema) -> str:
    lines = [f"backend: {pbtxt.quoted(backend)}\n"] if backend else []
    for side, tensors in (("input", schema.inputs), ("output", schema.outputs)):
        lines += _tensors(side, tensors or [])
    return "".join(lines)


def _rewritten(file: Path, schema: Schema | None) -> str:
    """The model's own configuration without its name, and with the tensors of its schema."""
    try:
        text = file.read_text()
        given = pbtxt.fields(text)
    except (InvalidModelError, UnicodeDecodeError) as error:
        raise InvalidModelError(f"the model's {_CONFIG_FILE} cannot be read: {error}") from error
    sides = {} if schema is None else {"input": schema.inputs, "output": schema.outputs}
    described = {side: tensors for side, tensors in sides.items() if tensors is not None}
    kept = pbtxt.without(text, {"name", *described})
    if not described:
        return kept
    batched = any(field.name == "max_batch_size" and field.value.strip("+0") for field in given)
    added = [
        line
        for side, tensors in described.items()
        for line in _tensors(side, [_of_a_batch(tensor) for tensor in tensors] if batched else tensors)
    ]
    return "".join([kept if not kept or kept.endswith("\n") else f"{kept}\n", *added])


def _of_a_batch(tensor: Tensor) -> Tensor:
    """The tensor without its first dimension, which with a `max_batch_size` is Triton's."""
    if tensor.shape[:1] != [-1]:
        raise InvalidModelError(
            f"tensor {tensor.name} has shape {tensor.shape}, but the configuration has a max_batch_size: "
            "the schema must give the batch as the first dimension, -1",
        )
    return Tensor(tensor.name, tensor.datatype, tensor.shape[1:])


def _tensors(side: str, tensors: list[Tensor]) -> list[str]:
    return [f"{side} {{\n{_description(tensor)}}}\n" for tensor in tensors]


def _description(tensor: Tensor) -> str:
    datatype = tensor.datatype.upper()
    if datatype not in _DATATYPES:
        known = ", ".join(sorted(_DATATYPES))
        raise InvalidModelError(
            f"tensor {tensor.name} of the schema has datatype {tensor.datatype}; known are {known}"
        )
    lines = [
        f"  name: {pbtxt.quoted(tensor.name)}\n",
        f"  data_type: {_RENAMED.get(datatype, f'TYPE_{datatype}')}\n",
    ]
    # Triton wants at least one dimension; a scalar is told as a tensor of one element.
    lines += [f"  dims: {size}\n" for size in tensor.shape or [1]]
    if not tensor.shape:
        lines.append("  reshape { }\n")
    return "".join(lines)

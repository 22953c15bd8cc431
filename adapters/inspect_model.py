"""Entry point of `modelmesh inspect-model`: what a model server will see of a model's files."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.errors import AdapterError
from adapters.files import folder_name
from adapters.main import find_adapter, known_types
from adapters.sdk import Model, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapters.sdk import ServerAdapter

_ROOT = "/models"


def main(argv: list[str]) -> int:
    """Lays the model out in a temporary folder and prints the result; 1 where that cannot be done."""
    parser = argparse.ArgumentParser(
        prog="modelmesh inspect-model", description="Shows what a model server will see of a model's files."
    )
    parser.add_argument("path", type=Path, help="the model's file or folder, as it lies in the storage")
    parser.add_argument("--runtime", required=True, metavar="TYPE", help=", ".join(known_types()))
    parser.add_argument("--format", default="", help="name of the model's format, such as onnx")
    parser.add_argument("--schema", type=Path, help="the model's schema file")
    parser.add_argument("--name", default="MODEL", help="the model's name in the server")
    chosen = parser.parse_args(argv)
    schema = chosen.schema and chosen.schema.absolute()
    model = Model(chosen.name, chosen.format.lower(), chosen.path.absolute(), schema)
    try:
        with tempfile.TemporaryDirectory() as root:
            for line in asyncio.run(_seen(find_adapter(chosen.runtime), model, Path(root))):
                sys.stdout.write(f"{line}\n")
    except (AdapterError, OSError) as error:
        sys.stderr.write(f"modelmesh inspect-model: {error}\n")
        return 1
    return 0


async def _seen(adapter_type: type[ServerAdapter], model: Model, root: Path) -> list[str]:
    variables = {"CONTAINER_MEM_REQ_BYTES": str(1 << 30), "ROOT_MODEL_DIR": str(root)}
    settings = Settings.from_environment(
        variables,
        size_multiplier=adapter_type.size_multiplier,
        server_port=adapter_type.default_port,
        data_port=adapter_type.default_data_port,
    )
    adapter = adapter_type(settings)
    try:
        folder = adapter.folder / folder_name(model.id)
        folder.mkdir(parents=True)
        adapter.lay_out(model, folder)
        return [f"{_ROOT}/{adapter.folder_name}/", *_tree(adapter.folder, root, "  ")]
    finally:
        await adapter.close()


def _tree(folder: Path, root: Path, indent: str) -> Iterator[str]:
    """Lines of a folder's content: links with what they lead to, and the text of files that were written."""
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink():
            yield f"{indent}{entry.name} -> {entry.readlink()}"
        elif entry.is_dir():
            yield f"{indent}{entry.name}/"
            yield from _tree(entry, root, f"{indent}  ")
        elif entry.suffix == ".onnx":
            yield f"{indent}{entry.name} (converted, {entry.stat().st_size} bytes)"
        else:
            yield f"{indent}{entry.name}"
            text = entry.read_text().replace(str(root), _ROOT)
            yield from (f"{indent}  | {line}" for line in text.splitlines())

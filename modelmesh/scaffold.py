"""Entry point of `modelmesh scaffold`: makes the folder of a new custom runtime, which works as it is.

It is a copy of the example `runtimes/examples/own-server` under another name, so what users get is what the
example's tests run.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import modelmesh

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(
    help="Make the folder of something new.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_EXAMPLE = "own-server"
# A Deployment's pods are named after it, with more words around it.
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
# Words that YAML, of one version or another, reads as a value that is no text.
_NOT_TEXT = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}


@app.callback()
def _group() -> None:
    """Keeps `runtime` a word of the command line while it is the only one."""


@app.command()
def runtime(
    name: Annotated[str, typer.Argument(help="Name of the runtime: lower-case letters, digits and dashes.")],
    into: Annotated[Path | None, typer.Option(help="The new folder; by default NAME, here.")] = None,
) -> None:
    """Make the folder of a model server that speaks the SPI, with its manifests, image and a sample model."""
    if not _NAME.fullmatch(name) or name in _NOT_TEXT:
        raise typer.BadParameter(
            f"{name!r} must be at most 40 lower-case letters, digits and dashes, begin with a letter, "
            "and be no word that YAML reads as a value",
            param_hint="NAME",
        )
    folder = into or Path(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise typer.BadParameter(
            f"{folder} is there already; choose another place: --into", param_hint="NAME"
        )
    try:
        for file in make(name, folder):
            typer.echo(f"made {file}")
    except OSError as error:
        raise typer.BadParameter(f"{folder} cannot be made: {error}", param_hint="--into") from error
    typer.echo(f"\n{folder}/README.md says how to try it, test it and deploy it.")


def make(name: str, folder: Path) -> list[Path]:
    """Copies the example into `folder` under another name; returns the new files.

    Raises:
        OSError: a file cannot be written.
    """
    example = _examples() / _EXAMPLE
    made = []
    for file in sorted(example.rglob("*")):
        target = folder / file.relative_to(example)
        if "__pycache__" in file.parts or not file.is_file():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        if target.parent.name != "protocol":
            target.write_text(target.read_text().replace(_EXAMPLE, name))
        made.append(target)
    return made


def _examples() -> Path:
    """The examples lie in the wheel with the rest of the application, else in the repository."""
    here = Path(modelmesh.__file__).parent
    packed = here / "_app"
    return (packed if packed.is_dir() else here.parent) / "runtimes" / "examples"


def main(argv: Sequence[str]) -> int:
    """Runs the command line and returns its exit status."""
    try:
        result = app(list(argv), prog_name="modelmesh scaffold", standalone_mode=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return int(result or 0)

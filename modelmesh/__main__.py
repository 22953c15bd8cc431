"""The `modelmesh` command.

Each subcommand lives in its own package with its own dependencies (an extra of the wheel), so nothing is
imported before it is asked for: a mesh process must not pay for the controller's libraries in memory or
start-up time.
"""

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelmesh import logs


@dataclass(frozen=True, slots=True)
class Subcommand:
    """A part of the project that the launcher starts.

    `module` has a `main(argv) -> int`; `extra` is the optional dependency set that the part needs.
    """

    module: str
    extra: str
    summary: str


SUBCOMMANDS = {
    "local": Subcommand("local.main", "local", "the whole system on this machine, without Kubernetes"),
    "controller": Subcommand("controller.main", "controller", "the Kubernetes controller"),
    "mesh": Subcommand("mesh.main", "mesh", "one mesh instance, beside one model server"),
    "explain": Subcommand("mesh.explain_main", "mesh", "why a model or an instance is as it is"),
    "top": Subcommand("mesh.top_main", "mesh", "the instances of a mesh, again and again"),
    "adapter": Subcommand("adapters.main", "adapters", "the adapter of a model server, by its type"),
    "inspect-model": Subcommand(
        "adapters.inspect_model", "adapters", "what a model server will see of a model's files"
    ),
    "conformance": Subcommand(
        "modelmesh.conformance.main", "adapters", "whether a runtime keeps the contract of the SPI"
    ),
    "scaffold": Subcommand("modelmesh.scaffold", "adapters", "the folder of a new custom runtime"),
    "puller": Subcommand("adapters.puller.main", "adapters", "the puller in front of a custom model server"),
}


def _usage() -> str:
    width = max(map(len, SUBCOMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in SUBCOMMANDS.items()]
    return "\n".join(
        [
            "usage: modelmesh COMMAND [ARGUMENTS]",
            "",
            *lines,
            "",
            "modelmesh COMMAND --help tells more; --version.",
        ],
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand and returns its exit status: 2 for a command line that names none."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    packed = Path(__file__).parent / "_app"
    if packed.is_dir():
        sys.path.insert(0, str(packed))
    if not arguments or arguments[0] in {"-h", "--help"}:
        sys.stdout.write(_usage() + "\n")
        return 0
    name, *rest = arguments
    if name == "--version":
        sys.stdout.write(f"modelmesh {importlib.metadata.version('modelmesh')}\n")
        return 0
    if name not in SUBCOMMANDS:
        sys.stderr.write(f"modelmesh: no such command: {name}\n\n{_usage()}\n")
        return 2
    command = SUBCOMMANDS[name]
    if name != "local":
        logs.configure(name)
    try:
        run = importlib.import_module(command.module).main
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"modelmesh {name}: the Python package {error.name!r} is missing; "
            f"install the extra: pip install 'modelmesh[{command.extra}]'\n",
        )
        return 1
    return int(run(rest) or 0)


if __name__ == "__main__":
    sys.exit(main())

"""Entry point of `modelmesh adapter TYPE`: the adapter of one model server.

An installed package adds a server type as an entry point in the group `modelmesh.adapters` that names a
subclass of `adapters.sdk.ServerAdapter`. A class that no package brings is named as `module:Class`.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from importlib.metadata import entry_points

from adapters.allocator import bound_arenas
from adapters.errors import ConfigurationError
from adapters.sdk.adapter import ServerAdapter
from adapters.sdk.serve import serve
from adapters.sdk.settings import Settings

ENTRY_POINT_GROUP = "modelmesh.adapters"

# Imported only when asked for, so that a server's adapter costs no memory beside another.
_BUILT_IN = {
    "mlserver": "adapters.mlserver:MLServerAdapter",
    "ovms": "adapters.ovms:OpenVINOAdapter",
    "torchserve": "adapters.torchserve:TorchServeAdapter",
    "triton": "adapters.triton:TritonAdapter",
}


def main(argv: list[str]) -> int:
    """Runs the adapter of the server type `argv[0]`; 1 where it cannot start, 2 for a wrong command line."""
    if len(argv) != 1 or argv[0].startswith("-"):
        out = sys.stdout if argv in (["-h"], ["--help"]) else sys.stderr
        out.write(
            "usage: modelmesh adapter TYPE\n\n"
            f"TYPE: {', '.join(known_types())}, or module:Class of your own\n"
            "All else comes from environment variables: CONTAINER_MEM_REQ_BYTES (required), ADAPTER_PORT, "
            "RUNTIME_PORT, ROOT_MODEL_DIR, …\n",
        )
        return 0 if out is sys.stdout else 2
    bound_arenas()
    try:
        adapter_type = find_adapter(argv[0])
        settings = Settings.from_environment(
            os.environ,
            size_multiplier=adapter_type.size_multiplier,
            server_port=adapter_type.default_port,
            data_port=adapter_type.default_data_port,
        )
        asyncio.run(_run(adapter_type, settings))
    except ConfigurationError as error:
        sys.stderr.write(f"modelmesh adapter {argv[0]}: {error}\n")
        return 1
    return 0


async def _run(adapter_type: type[ServerAdapter], settings: Settings) -> None:
    await serve(adapter_type(settings), settings)


def known_types() -> list[str]:
    """Names of all server types, ours and the installed ones."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def find_adapter(server_type: str) -> type[ServerAdapter]:
    """The adapter class of a server type.

    Raises:
        ConfigurationError: no such type; names those that there are.
    """
    if server_type in _BUILT_IN:
        return _imported(_BUILT_IN[server_type])
    if ":" in server_type:
        return _imported(server_type)
    for point in entry_points(group=ENTRY_POINT_GROUP, name=server_type):
        loaded: type[ServerAdapter] = point.load()
        return loaded
    raise ConfigurationError(
        f'unknown server type "{server_type}"; known types: {", ".join(known_types())}; '
        "an adapter class of your own is named as module:Class"
    )


def _imported(place: str) -> type[ServerAdapter]:
    module, _, name = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f'the adapter "{place}" cannot be imported: {error}') from error
    if not isinstance(found, type) or not issubclass(found, ServerAdapter):
        raise ConfigurationError(f'"{place}" is not a subclass of adapters.sdk.ServerAdapter')
    return found

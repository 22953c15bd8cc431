"""The parts of kubernetes-asyncio we build on, without its 850 modules of model classes.

We want its configuration (kubeconfig, exec plug-ins, service accounts) and its transport (TLS, proxies),
and take bodies as raw JSON. Importing the package the usual way also imports every generated model and API
class: 66 MiB of memory and two seconds. So its submodules are imported here with bare packages in place of
the two `__init__` modules that pull the rest in; afterwards all of it is taken out of `sys.modules`, so
that anybody else who imports kubernetes-asyncio gets it whole.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_PACKAGE = "kubernetes_asyncio"


def _bare(name: str, folder: Path) -> ModuleType:
    """Register a package whose submodules can be imported and whose `__init__` is not run."""
    package = ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package
    return package


def _load() -> tuple[Any, Any, Any]:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("kubernetes-asyncio is not installed: install modelmesh[controller]")
    root = Path(spec.submodule_search_locations[0])
    others = {name: module for name, module in sys.modules.items() if _is_ours(name)}
    for name in others:
        del sys.modules[name]
    try:
        _bare(_PACKAGE, root)
        client: Any = _bare(f"{_PACKAGE}.client", root / "client")
        client.Configuration = importlib.import_module(f"{_PACKAGE}.client.configuration").Configuration
        client.ApiClient = None  # named by the configuration loader, for a function that we do not call
        rest = importlib.import_module(f"{_PACKAGE}.client.rest")
        config = importlib.import_module(f"{_PACKAGE}.config")
    finally:
        for name in [name for name in sys.modules if _is_ours(name)]:
            del sys.modules[name]
        sys.modules.update(others)
    return client.Configuration, rest.RESTClientObject, config


def _is_ours(name: str) -> bool:
    return name == _PACKAGE or name.startswith(f"{_PACKAGE}.")


Configuration, RESTClientObject, config = _load()

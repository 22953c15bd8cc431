"""Old names of the management API, which old clients still use: the messages are the same."""

from collections.abc import Mapping
from typing import TypeVar

SERVICE = "mmesh.ModelMesh"
LEGACY_SERVICE = "com.ibm.watson.tas.proto.TasRuntime"
LEGACY_METHODS = {"addModel": "registerModel", "deleteModel": "unregisterModel"}

Method = TypeVar("Method")


def with_old_names(methods: Mapping[str, Method]) -> dict[str, Method]:
    """The methods of `mmesh.ModelMesh`, from plain names, under all full names that they ever had."""
    named = {**methods, **{old: methods[new] for old, new in LEGACY_METHODS.items()}}
    services = (SERVICE, LEGACY_SERVICE)
    return {f"{service}/{name}": method for service in services for name, method in named.items()}

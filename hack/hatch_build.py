"""Packs the application's folders under modelmesh/_app, in real wheels only.

An editable install imports them from the repository, so copies would only go stale.
"""

import os
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = ("adapters", "api", "config", "controller", "fvt/proto", "local", "mesh", "runtimes", "store")
# An image has only the folders that its process needs.
CHOSEN = os.environ.get("MODELMESH_FOLDERS", " ".join(FOLDERS)).split()


class ApplicationFolders(BuildHookInterface):  # type: ignore[type-arg,misc]
    """Adds the folders to the files of a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Extends `force_include` unless the wheel is editable."""
        if version != "editable":
            build_data["force_include"] |= {folder: f"modelmesh/_app/{folder}" for folder in CHOSEN}

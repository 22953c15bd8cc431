"""Version folders: how a repository for Triton or OpenVINO keeps several versions of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def newest_version(entries: Iterable[Path]) -> Path | None:
    """The folder with the largest version, if all folders are named by whole numbers and one is above 0.

    Files and links count for nothing. The folder keeps its spelling: `007` stays `007`.
    """
    folders = [entry for entry in entries if entry.is_dir() and not entry.is_symlink()]
    try:
        numbered = [(int(folder.name), folder) for folder in folders]
    except ValueError:
        return None
    number, folder = max(numbered, key=lambda item: item[0], default=(0, None))
    return folder if number > 0 else None

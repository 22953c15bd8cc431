"""Paths and folders of models: names that cannot escape their root, sizes, clean removal."""

import hashlib
import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from urllib.parse import quote

# Most file systems end at 255 bytes a name; what is left is for suffixes.
_LONGEST_NAME = 200


def secure_join(root: Path, *parts: str) -> Path:
    """Joins `parts` to `root`; neither `..` nor a leading slash leads out of it. Links are not followed."""
    inside: list[str] = []
    for name in "/".join(parts).split("/"):
        if name == "..":
            del inside[-1:]
        elif name not in {"", "."}:
            inside.append(name)
    return root.joinpath(*inside)


def folder_name(model_id: str) -> str:
    """A single file name for a model id: the id itself where that is safe, as it nearly always is.

    Names that start with `_` or `.` belong to adapters, so such ids are escaped.
    """
    name = quote(model_id, safe="!$&'()+,;=@[]{}^~ ")
    if re.match(r"[._]", name) or not name:
        name = f"%{ord(name[0]):02X}{name[1:]}" if name else "%"
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{hashlib.sha256(model_id.encode()).hexdigest()[:16]}"
    return name


def disk_size(path: Path) -> int:
    """Bytes of the regular files at and below `path`, links followed, each folder counted once."""
    if not path.is_dir():
        return path.stat().st_size
    total = 0
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        for name in names:
            file = Path(folder, name)
            if file.is_file():
                total += file.stat().st_size
    return total


def remove(path: Path) -> None:
    """Removes a file, a link (not what it points at) or a folder with all it holds; absent is fine.

    Raises:
        OSError: something could not be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def clear_folder(folder: Path, *, keep: Collection[str] = (), keep_prefixes: tuple[str, ...] = ()) -> None:
    """Removes the entries of a folder, except those named in `keep` or starting like one of `keep_prefixes`.

    Raises:
        OSError: an entry could not be removed.
    """
    for entry in list(folder.iterdir()) if folder.is_dir() else []:
        if entry.name not in keep and not entry.name.startswith(keep_prefixes):
            remove(entry)


def write_whole(path: Path, content: bytes, *, mode: int) -> None:
    """Writes a file so that a reader sees all of it or none."""
    draft = path.with_name(f".{path.name}.part")
    draft.write_bytes(content)
    draft.chmod(mode)
    draft.replace(path)

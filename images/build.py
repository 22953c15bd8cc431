"""Builds images and leaves each as an archive that container runtimes load."""

from __future__ import annotations

import hashlib
import subprocess
from typing import TYPE_CHECKING

from images import catalog
from images.catalog import ROOT, Image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from images.bases import Bases
    from images.engine import Engine

_MIB = 1 << 20


def fingerprint(image: Image, bases: Bases) -> str:
    """Return a hash of everything that an image is made of: its name, its inputs, what it starts from."""
    digest = hashlib.sha256(repr((image.reference, sorted(bases.arguments.items()))).encode())
    for name in image.after if bases.made_here else ():
        digest.update(fingerprint(catalog.find(name), bases).encode())
    for file in _inputs(image):
        digest.update(f"\0{file.relative_to(ROOT)}\0{file.stat().st_mode & 0o111}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _inputs(image: Image) -> Iterator[Path]:
    # What git ignores (byte code, built modules) is no input; what is new and not committed yet is.
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate", "--"]
    listed = subprocess.run(
        [*command, f"images/{image.name}", *image.inputs], cwd=ROOT, capture_output=True, check=True
    )
    for name in sorted(listed.stdout.decode().split("\0")):
        if name and (ROOT / name).is_file():
            yield ROOT / name


def ensure(image: Image, engine: Engine, bases: Bases, folder: Path, *, stored: bool = False) -> bool:
    """Build an image unless its archive in `folder` is up to date; return whether it was built.

    Args:
        image: the image.
        engine: what builds.
        bases: what images start from.
        folder: where archives are.
        stored: the engine's own store must have it too, because another image starts from it.

    Raises:
        ImageError: the build failed.
    """
    for name in image.after if bases.made_here else ():
        ensure(catalog.find(name), engine, bases, folder, stored=True)
    archive, note = folder / f"{image.name}.tar", folder / f"{image.name}.sha256"
    wanted = fingerprint(image, bases)
    lost = stored and not engine.has(image.reference)
    if archive.exists() and note.exists() and note.read_text().strip() == wanted and not lost:
        return False
    engine.build(
        image.reference,
        ROOT,
        containerfile=image.folder / "Containerfile",
        arguments=bases.arguments,
        mounts=bases.mounts,
    )
    folder.mkdir(parents=True, exist_ok=True)
    engine.save(image.reference, archive)
    note.write_text(f"{wanted}\n")
    return True


def size_mib(image: Image, folder: Path) -> float:
    """Return how much an image's archive weighs, in MiB; its layers are not compressed."""
    return (folder / f"{image.name}.tar").stat().st_size / _MIB

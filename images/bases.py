"""What images start from: public images, or, where no registry answers, ones made from Debian packages.

The made ones hold Debian 12 with its Python 3.11 (`base`), and a compiler for the stages that build
(`builder`). The Rust and Go of this machine are mounted into the builds that need them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from images.engine import Mount
from images.errors import ImageError

if TYPE_CHECKING:
    from images.engine import Engine

_REGISTRY = "https://registry-1.docker.io/v2/"
_PROBE_SECONDS = 5
_MIRROR = "http://deb.debian.org/debian"
_PACKAGES = ("ca-certificates", "libpython3-stdlib", "python3-minimal", "python3.11")
_BUILDER = Path(__file__).parent / "bases" / "builder.Containerfile"
# Documentation and translations, which no container reads; dpkg's own list is kept for scanners.
_LEFT_OUT = (
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/cache/debconf",
    "var/lib/apt/lists",
    "var/log",
)


@dataclass(frozen=True, slots=True)
class Bases:
    """Build arguments that name the images to start from, and mounts that bring what those lack."""

    arguments: dict[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()

    @property
    def made_here(self) -> bool:
        """Whether no registry answered, so that what is public elsewhere has to be built first."""
        return bool(self.arguments)


def find(engine: Engine, cache: Path, choice: str = "auto") -> Bases:
    """Return the public bases, by default where Docker Hub answers, else the ones made here.

    Args:
        engine: what builds.
        cache: where the root file system is kept between builds.
        choice: `registry`, `debian` or `auto`.

    Raises:
        ImageError: they cannot be made.
    """
    return Bases() if check(engine, choice) == "registry" else _debian(engine, cache)


def check(engine: Engine, choice: str = "auto") -> str:
    """Return which bases there are for a choice, `registry` or `debian`; ImageError says what is missing."""
    if choice not in {"auto", "registry", "debian"}:
        raise ImageError(f"bases {choice!r} are unknown; registry, debian and auto are there")
    if choice == "registry" or (choice == "auto" and _registry_answers()):
        return "registry"
    if not engine.can_mount:
        raise ImageError("docker needs a registry for its base images; build with podman or buildah instead")
    if os.geteuid() or shutil.which("debootstrap") is None:
        raise ImageError(
            "no registry answers, and a base image of Debian packages needs root and debootstrap "
            "(apt-get install debootstrap)"
        )
    return "debian"


def _registry_answers() -> bool:
    try:
        with urllib.request.urlopen(_REGISTRY, timeout=_PROBE_SECONDS):
            return True
    except urllib.error.HTTPError as error:
        # Who has not signed in is told so by the registry itself, and by no proxy.
        return error.code == HTTPStatus.UNAUTHORIZED and "Docker-Distribution-Api-Version" in error.headers
    except OSError:
        return False


def _debian(engine: Engine, cache: Path) -> Bases:
    recipe = hashlib.sha256("\n".join((_MIRROR, *_PACKAGES, *_LEFT_OUT)).encode())
    base = f"localhost/modelmesh-base:{recipe.hexdigest()[:12]}"
    if not engine.has(base):
        tree = cache / f"debian-{recipe.hexdigest()[:12]}"
        if not tree.is_dir():
            _debootstrap(tree)
        engine.load_root(base, tree)
    recipe.update(_BUILDER.read_bytes())
    builder = f"localhost/modelmesh-builder:{recipe.hexdigest()[:12]}"
    if not engine.has(builder):
        engine.build(builder, _BUILDER.parent, containerfile=_BUILDER, arguments={"BASE": base})
    arguments = {"BASE": base, "BUILDER": builder, "RUST": builder, "GO": builder}
    return Bases(arguments, tuple(_tools(cache)))


def _debootstrap(tree: Path) -> None:
    draft = tree.with_name(f"{tree.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.parent.mkdir(parents=True, exist_ok=True)
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}"]
    done = subprocess.run(
        [*command, "bookworm", str(draft), _MIRROR], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ImageError(f"debootstrap failed: {'; '.join(done.stdout.splitlines()[-3:])}")
    for path in _LEFT_OUT:
        for item in (draft / path).iterdir():
            shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()
    draft.rename(tree)


def _tools(cache: Path) -> list[Mount]:
    """Compilers of this machine, and the caches of package managers, which the builds share with it."""
    found = []
    if shutil.which("rustc"):
        sysroot = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True)
        found.append(Mount(Path(sysroot.stdout.strip()), "/usr/local/rust", read_only=True))
    if shutil.which("go"):
        root = subprocess.run(["go", "env", "GOROOT"], capture_output=True, text=True, check=True)
        found.append(Mount(Path(root.stdout.strip()), "/usr/local/go", read_only=True))
    caches = (".cache/uv", ".cargo/registry", "go/pkg/mod", ".cache/go-build")
    shared = [Mount(Path.home() / name, f"/root/{name}") for name in caches]
    shared.append(Mount(cache / "cargo-target", "/cargo-target"))
    for mount in shared:
        mount.source.mkdir(parents=True, exist_ok=True)
    return found + shared

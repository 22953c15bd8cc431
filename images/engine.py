"""The program that builds images: docker, podman or buildah, whichever works on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from images.errors import ImageError

_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_NEEDED = "install docker, podman or buildah (on Debian and Ubuntu: apt-get install buildah)"


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or file of this machine that a build sees, and that stays out of the image."""

    source: Path
    target: str
    read_only: bool = False

    def flags(self) -> list[str]:
        """Return the flags of a build."""
        return ["--volume", f"{self.source}:{self.target}:{'ro' if self.read_only else 'rw'}"]


@dataclass(frozen=True, slots=True)
class Engine:
    """One such program.

    Attributes:
        name: docker, podman or buildah.
    """

    name: str

    @property
    def can_mount(self) -> bool:
        """Whether a build can be given mounts."""
        return self.name != "docker"

    def build(
        self,
        reference: str,
        context: Path,
        *,
        containerfile: Path,
        arguments: dict[str, str],
        mounts: tuple[Mount, ...] = (),
    ) -> None:
        """Build an image.

        Raises:
            ImageError: the program failed; what it said is on standard error.
        """
        command = [self.name, "build", "--tag", reference, "--file", str(containerfile)]
        for name, value in arguments.items():
            command += ["--build-arg", f"{name}={value}"]
        if self.can_mount:
            # Certificates of a proxy that this machine trusts must be trusted by downloads in the build too.
            for mount in (
                *mounts,
                *([Mount(_BUNDLE, str(_BUNDLE), read_only=True)] if _BUNDLE.exists() else []),
            ):
                command += mount.flags()
        if self.name == "buildah":
            command += ["--layers", "--isolation", "chroot"]
        self._run([*command, str(context)], f"building {reference}")

    def load_root(self, reference: str, tree: Path) -> None:
        """Make an image of one layer out of a root file system."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "Containerfile"
            file.write_text("FROM scratch\nCOPY . /\n")
            self.build(reference, tree, containerfile=file, arguments={})

    def save(self, reference: str, archive: Path) -> None:
        """Write an image as a docker-archive, which every container runtime loads."""
        draft = archive.with_suffix(".new")
        draft.unlink(missing_ok=True)
        commands = {
            "buildah": [
                "buildah",
                "push",
                "--quiet",
                "--disable-compression",
                reference,
                f"docker-archive:{draft}:{reference}",
            ],
            "docker": ["docker", "save", "--output", str(draft), reference],
            "podman": ["podman", "save", "--format", "docker-archive", "--output", str(draft), reference],
        }
        self._run(commands[self.name], f"saving {reference}")
        draft.rename(archive)

    def has(self, reference: str) -> bool:
        """Return whether the program's store has an image."""
        kind = "image" if self.name in {"docker", "podman"} else "--type=image"
        command = [self.name, kind, "inspect", reference]
        if self.name == "buildah":
            command = ["buildah", "inspect", kind, reference]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _run(self, command: list[str], what: str) -> None:
        # Docker builds by BuildKit, podman and buildah in docker's format, so that archives are alike.
        variables = os.environ | {"DOCKER_BUILDKIT": "1", "BUILDAH_FORMAT": "docker"}
        done = subprocess.run(command, env=variables, check=False)
        if done.returncode:
            raise ImageError(f"{what} failed: {self.name} ended with status {done.returncode}")


def find(name: str = "") -> Engine:
    """Return the first program that works, or the one of this name.

    Raises:
        ImageError: none works; says how to get one.
    """
    probes = {"docker": ["docker", "info"], "podman": ["podman", "info"], "buildah": ["buildah", "info"]}
    if name and name not in probes:
        raise ImageError(f"{name!r} cannot build images; {', '.join(probes)} can")
    for candidate in [name] if name else probes:
        if shutil.which(candidate) is None:
            continue
        if subprocess.run(probes[candidate], capture_output=True, check=False).returncode == 0:
            return Engine(candidate)
    raise ImageError(f"{name or 'no program that builds images'} works on this machine; {_NEEDED}")

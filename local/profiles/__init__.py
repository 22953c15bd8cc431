"""Local profiles: how the image of a container runs as a process of this machine.

An image bakes in its entry point, its variables and its ports; a process on the loopback interface needs
ports of its own and folders below the pod's. A profile says which program stands for the image and which of
its variables and flags hold ports. It is data, one YAML file each in this folder; a user's own are named by
`modelmesh local up --profile`, or lie in $MODELMESH_HOME/profiles, and win.

    images: [seldonio/mlserver]        # repository names, without registry, tag and digest
    python: mlserver                   # the environment of runtimes/mlserver, where the program needs one
    commands:                          # by base name of the container's command; "" where there is none
      "": ["{python}/bin/mlserver"]
    arguments: [start, ...]            # where the container gives none
    defaults: {NAME: value}            # variables that the image would set; the container's win
    overrides: {NAME: value}           # variables that local mode sets; they win
    ports: [NAME, --flag]              # variables and flags whose numbers are ports of the pod

Paths and ports are written as inside the container. `{name}` stands for a fact of the cluster: see `Facts`;
`{folder}` is the folder of the profile's own file, after links.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import BaseModel, ConfigDict, Field

from local.errors import LocalError, ProfileMissingError

if TYPE_CHECKING:
    from collections.abc import Iterable


class Profile(BaseModel):
    """How one image runs locally; the module's text explains each field."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: tuple[str, ...]
    python: str = ""
    commands: dict[str, tuple[str, ...]]
    arguments: tuple[str, ...] = ()
    defaults: dict[str, str] = Field(default_factory=dict)
    overrides: dict[str, str] = Field(default_factory=dict)
    ports: frozenset[str] = frozenset()
    folder: str = ""
    """Where its file is; not written in it."""


class Profiles:
    """All profiles, by image."""

    def __init__(self, profiles: Iterable[Profile]) -> None:
        self._by_image = {image: profile for profile in profiles for image in profile.images}

    @classmethod
    def load(cls, *folders: Path, files: Iterable[Path] = ()) -> Profiles:
        """Read the YAML files of `folders`, then `files`; later ones win. A missing folder is an empty one.

        Raises:
            LocalError: names the file that is missing, or not a profile.
        """
        found = [file for folder in folders for file in sorted(folder.glob("*.yaml"))]
        return cls(_read(file) for file in (*found, *files))

    def find(self, image: str, command: str) -> tuple[Profile, tuple[str, ...]]:
        """Return the profile of an image, and the program that stands for a command.

        Args:
            image: as the container names it, with registry, tag or digest.
            command: first word of the container's `command`; empty when it has none.

        Raises:
            ProfileMissingError: with the images or commands that there are.
        """
        profile = self._by_image.get(repository(image))
        if profile is None:
            known = ", ".join(sorted(self._by_image))
            raise ProfileMissingError(
                f"image {image!r} has no local profile, so local mode cannot run it as a process; "
                f"images with one: {known}; write a profile and name it: modelmesh local up --profile FILE",
            )
        program = profile.commands.get(command.rsplit("/", 1)[-1])
        if program is None:
            known = ", ".join(name or "(the image's own)" for name in profile.commands)
            raise ProfileMissingError(
                f"command {command!r} of image {image!r} has no local profile; commands with one: {known}",
            )
        return profile, program


def every(home: Path, files: Iterable[str] = ()) -> Profiles:
    """Return the shipped profiles, those in a cluster's home, and those of `files`.

    Raises:
        LocalError: names the file that is missing, or not a profile.
    """
    return Profiles.load(Path(__file__).parent, home / "profiles", files=map(Path, files))


def _read(file: Path) -> Profile:
    try:
        profile = Profile.model_validate(yaml.safe_load(file.read_text()))
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: also pydantic's, and no UTF-8
        raise LocalError(f"{file} is not a local profile: {error}") from error
    return profile.model_copy(update={"folder": str(file.resolve().parent)})


def repository(image: str) -> str:
    """Return the repository of an image reference: no registry host, tag or digest."""
    name = image.split("@", 1)[0]
    head, _, rest = name.partition("/")
    if rest and ("." in head or ":" in head or head == "localhost"):
        name = rest
    path, _, last = name.rpartition("/")
    last = last.split(":", 1)[0]
    return f"{path}/{last}" if path else last

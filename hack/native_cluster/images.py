"""Container images: small ones made of one static program, and loading of docker-archive files."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hack.native_cluster.errors import NativeClusterError
from hack.native_cluster.paths import CONTAINERD_SOCKET
from hack.native_cluster.programs import COREDNS, LOCAL_PATH, which

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hack.native_cluster.namespaces import Namespaces

PAUSE = "docker.io/modelmesh-native/pause:1"
COREDNS_IMAGE = f"docker.io/modelmesh-native/coredns:{COREDNS.version}"
LOCAL_PATH_IMAGE = f"docker.io/modelmesh-native/local-path-provisioner:{LOCAL_PATH.version}"
BUSYBOX_IMAGE = "docker.io/modelmesh-native/busybox:1"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_APPLETS = ("cat", "chmod", "mkdir", "nslookup", "rm", "sh", "sleep")
_LABEL = "modelmesh.archive"
_UNPACK_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class ProgramImage:
    """An image of static programs and nothing else.

    Attributes:
        name: full name with tag.
        programs: path in the image -> file on this machine.
        entrypoint: what runs.
        links: path in the image -> what it points at.
    """

    name: str
    programs: Mapping[str, Path]
    entrypoint: tuple[str, ...]
    links: Mapping[str, str]


def own_images(pause: Path, coredns: Path, local_path: Path) -> list[ProgramImage]:
    """Return the images that the cluster itself needs, of the built programs."""
    busybox = which("busybox")
    links = {f"bin/{applet}": "busybox" for applet in _APPLETS}
    return [
        ProgramImage(PAUSE, {"pause": pause}, ("/pause",), {}),
        ProgramImage(COREDNS_IMAGE, {"coredns": coredns}, ("/coredns",), {}),
        ProgramImage(
            LOCAL_PATH_IMAGE, {"local-path-provisioner": local_path}, ("/local-path-provisioner",), {}
        ),
        ProgramImage(BUSYBOX_IMAGE, {"bin/busybox": busybox}, ("/bin/sh",), links),
    ]


def write_archive(image: ProgramImage, target: Path) -> None:
    """Write an image as a docker-archive; the same programs give the same bytes."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for folder in ("bin", "tmp"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            archive.addfile(entry)
        for path, file in sorted(image.programs.items()):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = file.stat().st_size, 0o755
            with file.open("rb") as program:
                archive.addfile(entry, program)
        for path, points_at in sorted(image.links.items()):
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname = tarfile.SYMTYPE, points_at
            archive.addfile(entry)
    digest = hashlib.sha256(layer.getbuffer()).hexdigest()
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Entrypoint": list(image.entrypoint), "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    config_text = json.dumps(config).encode()
    config_name = f"{hashlib.sha256(config_text).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [image.name], "Layers": [f"{digest}/layer.tar"]}]
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_suffix(".new")
    with tarfile.open(draft, "w") as archive:
        for name, content in (
            (config_name, config_text),
            (f"{digest}/layer.tar", layer.getvalue()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    draft.rename(target)


def load(namespaces: Namespaces, archive: Path) -> list[str]:
    """Load a docker-archive where its images are not there yet; return the names of those that were loaded.

    Raises:
        NativeClusterError: the file is no docker-archive, has no names, or containerd refuses it.
    """
    manifest = _manifest(archive)
    try:
        names = [name for image in json.loads(manifest) for name in image["RepoTags"] or ()]
    except (ValueError, KeyError, TypeError) as error:
        raise NativeClusterError(
            f"{archive}: its manifest.json is none of a docker-archive: {error!r}"
        ) from error
    if not names:
        raise NativeClusterError(f"{archive}: its images have no names; save them with a name and a tag")
    names = [full_name(name) for name in names]
    digest = hashlib.sha256(manifest).hexdigest()[:32]
    listed = namespaces.run([*_ctr(), "images", "list"]).stdout.splitlines()[1:]
    present = {line.split()[0] for line in listed if f"{_LABEL}={digest}" in line}
    if present.issuperset(names):
        return []
    # The file may not be visible inside: it goes in by standard input.
    with archive.open("rb") as content:
        namespaces.run(
            [*_ctr(), "images", "import", "--all-platforms", "--snapshotter=overlayfs", "-"],
            given=content,
            timeout=_UNPACK_SECONDS,
        )
    for name in names:
        namespaces.run([*_ctr(), "images", "label", name, f"{_LABEL}={digest}"])
    return names


def _ctr() -> list[str]:
    return [str(which("ctr")), f"--address={CONTAINERD_SOCKET}", "--namespace=k8s.io"]


def _manifest(archive: Path) -> bytes:
    try:
        with tarfile.open(archive) as content:
            file = content.extractfile("manifest.json")
            return file.read() if file else b""
    except FileNotFoundError:
        raise NativeClusterError(f"{archive}: there is no such file") from None
    except (tarfile.TarError, KeyError, OSError) as error:
        raise NativeClusterError(
            f"{archive} is no docker-archive ({error}); save one with `docker save`"
        ) from error


def full_name(name: str) -> str:
    """Return a name as containerd keeps it: with a registry, as docker would complete it."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"

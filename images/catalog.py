"""The images there are: what each is called, and what goes into it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_PYTHON = (
    "pyproject.toml",
    "uv.lock",
    "dataplane/pyproject.toml",
    "hack/hatch_build.py",
    "images/install",
    "modelmesh",
)


def version() -> str:
    """Return the project's version, the tag of our images."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return str(document["project"]["version"])


@dataclass(frozen=True, slots=True)
class Image:
    """One image.

    Attributes:
        name: of its folder below `images`, and of its archive.
        reference: repository and tag, as manifests name it.
        inputs: files and folders of the repository that its build copies, besides its own folder.
        after: images that its build starts from.
        limit_mib: what its archive may weigh.
    """

    name: str
    reference: str
    inputs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    limit_mib: int = 0

    @property
    def folder(self) -> Path:
        """Where its Containerfile is."""
        return ROOT / "images" / self.name


def ours() -> tuple[Image, ...]:
    """Return the images of a Modelmesh installation."""
    tag = version()
    dataplane = ("dataplane/Cargo.lock", "dataplane/Cargo.toml", "dataplane/src", "dataplane/python")
    return (
        Image(
            "mesh",
            f"docker.io/modelmesh/mesh:{tag}",
            (*_PYTHON, *dataplane, "api", "mesh", "store"),
            limit_mib=200,
        ),
        Image("adapter", f"docker.io/modelmesh/adapter:{tag}", (*_PYTHON, "adapters", "api"), limit_mib=200),
        Image(
            "controller",
            f"docker.io/modelmesh/controller:{tag}",
            (*_PYTHON, "api", "controller", "store"),
            limit_mib=220,
        ),
    )


def servers() -> tuple[Image, ...]:
    """Return the stand-ins for public images on machines that reach no registry, and the samples' server."""
    return (
        Image("mlserver", "docker.io/seldonio/mlserver:1.7.1", ("runtimes/mlserver",), limit_mib=1000),
        Image(
            "minio-examples",
            f"docker.io/modelmesh/minio-examples:{version()}",
            ("local/samples/train.py",),
            after=("mlserver",),
            limit_mib=250,
        ),
        Image("etcd", "quay.io/coreos/etcd:v3.5.35", limit_mib=200),
    )

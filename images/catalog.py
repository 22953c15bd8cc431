"""The images there are: what each is called, and what goes into it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from images.errors import ImageError

ROOT = Path(__file__).parent.parent
_PYTHON = (
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "uv.lock",
    "dataplane/pyproject.toml",
    "hack/hatch_build.py",
    "images/install",
    "images/modelmesh",
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
        after: names of images that its build starts from; public ones, so a registry may have them too.
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
    dataplane = (
        "dataplane/Cargo.lock",
        "dataplane/Cargo.toml",
        "dataplane/benches",
        "dataplane/src",
        "dataplane/python",
    )
    return (
        Image(
            "mesh",
            f"docker.io/modelmesh/mesh:{tag}",
            (*_PYTHON, *dataplane, "api", "mesh", "store"),
            limit_mib=200,
        ),
        Image("adapter", f"docker.io/modelmesh/adapter:{tag}", (*_PYTHON, "adapters", "api"), limit_mib=250),
        Image(
            "controller",
            f"docker.io/modelmesh/controller:{tag}",
            (*_PYTHON, "api", "controller", "store"),
            limit_mib=240,
        ),
    )


def servers() -> tuple[Image, ...]:
    """Return MinIO with sample models, and what stands for public images where no registry answers."""
    build = "images/environment"
    return (
        Image("mlserver", "docker.io/seldonio/mlserver:1.7.1", (build, "runtimes/mlserver"), limit_mib=900),
        Image("etcd", "quay.io/coreos/etcd:v3.5.35", limit_mib=60),
        Image(
            "minio-examples",
            f"docker.io/modelmesh/minio-examples:{version()}",
            ("local/samples/train.py",),
            after=("mlserver",),
            limit_mib=250,
        ),
        Image("triton", "nvcr.io/nvidia/tritonserver:25.02-py3", (build, "runtimes/triton"), limit_mib=600),
        Image(
            "ovms",
            "docker.io/openvino/model_server:2025.3",
            (build, "api/proto", "runtimes/ovms"),
            limit_mib=500,
        ),
    )


def on_demand() -> tuple[Image, ...]:
    """Return images that are built only when named: gigabytes."""
    inputs = ("images/environment", "runtimes/torchserve")
    return (Image("torchserve", "docker.io/pytorch/torchserve:0.12.0-cpu", inputs, limit_mib=8000),)


def every() -> dict[str, Image]:
    """Return all images by name."""
    return {image.name: image for image in (*ours(), *servers(), *on_demand())}


def find(name: str) -> Image:
    """Return an image by name; ImageError with the names that there are."""
    images = every()
    if name not in images:
        raise ImageError(f"there is no image {name!r}; there are {', '.join(images)}")
    return images[name]

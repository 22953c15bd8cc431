"""What images are once they are built: `make test-images` opens the archives in $MODELMESH_HOME/images.

Entry points run by buildah, in a chroot of the image and without a container; only where that is installed.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from images import catalog
from local.home import Home

if TYPE_CHECKING:
    from collections.abc import Iterator

    from images.catalog import Image

FOLDER = Home.from_environment().root / "images"
BUILT = [image for image in catalog.every().values() if (FOLDER / f"{image.name}.tar").exists()]
OURS = {image.name for image in catalog.ours()}
_MIB = 1 << 20

pytestmark = pytest.mark.timeout(300)


def test_our_images_are_built() -> None:
    assert {image.name for image in BUILT} >= OURS, "run `make images` first"


@pytest.fixture(params=BUILT, ids=lambda image: image.name, scope="module")
def image(request: pytest.FixtureRequest) -> Image:
    found: Image = request.param
    return found


@pytest.fixture(scope="module")
def archive(image: Image) -> Iterator[tarfile.TarFile]:
    with tarfile.open(FOLDER / f"{image.name}.tar") as opened:
        yield opened


def read(archive: tarfile.TarFile, name: str) -> Any:
    member = archive.extractfile(name)
    assert member
    return json.load(member)


@pytest.fixture(scope="module")
def config(archive: tarfile.TarFile) -> dict[str, Any]:
    settings: dict[str, Any] = read(archive, read(archive, "manifest.json")[0]["Config"])["config"]
    return settings


@pytest.fixture(scope="module")
def files(archive: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """All files of an image by path."""
    found = {}
    for layer in read(archive, "manifest.json")[0]["Layers"]:
        member = archive.extractfile(layer)
        assert member
        with tarfile.open(fileobj=member) as opened:
            found |= {info.name.removeprefix("./"): info for info in opened}
    return found


def test_its_name_is_the_one_of_the_manifests(image: Image, archive: tarfile.TarFile) -> None:
    assert read(archive, "manifest.json")[0]["RepoTags"] == [image.reference]


def test_it_runs_as_a_user_who_is_not_root(config: dict[str, Any]) -> None:
    assert re.fullmatch(r"[1-9]\d*(:\d+)?", config["User"])


def test_it_weighs_no_more_than_it_may(image: Image) -> None:
    assert (FOLDER / f"{image.name}.tar").stat().st_size <= image.limit_mib * _MIB


def test_it_has_no_compiler_and_no_installer_of_packages(files: dict[str, tarfile.TarInfo]) -> None:
    tools = {"cc", "gcc", "g++", "clang", "ld", "as", "cargo", "rustc", "go", "pip", "pip3", "uv"}
    found = {path for path, info in files.items() if path.rsplit("/", 1)[-1] in tools and info.mode & 0o111}
    assert {path for path in found if re.match(r"(usr/(local/)?|opt/\w+/)?s?bin/", path)} == set()


def test_our_code_cannot_be_changed_by_the_process(image: Image, files: dict[str, tarfile.TarInfo]) -> None:
    ours = [
        info for path, info in files.items() if path.startswith(("app/", "opt/app", "opt/kserve", "manager"))
    ]
    assert bool(ours) == (image.name in OURS)
    assert [info.name for info in ours if not info.issym() and (info.uid or info.mode & 0o022)] == []


def test_the_build_leaves_no_certificate_or_cache_behind(files: dict[str, tarfile.TarInfo]) -> None:
    left = re.compile(
        r"(root/\.(cache|cargo)|go/pkg|cargo-target|var/lib/apt/lists/.+_|usr/local/(rust|go)/.)"
    )
    assert [path for path, info in files.items() if left.match(path) and not info.isdir()] == []


COMMANDS = {
    "adapter": [
        "/opt/app/puller --help",
        "env PYTHONPATH=/opt/other modelmesh adapter --help",
        "modelmesh --version",
    ],
    "controller": ["/manager --help"],
    "etcd": ["etcd --version"],
    "mesh": [
        "modelmesh --version",
        "python3 -c 'import sys; sys.path.insert(0, \"/app/modelmesh/_app\"); import mesh.main'",
    ],
    "minio-examples": ["minio --version"],
    "mlserver": ["mlserver --version", "python -c 'import lightgbm, mlserver_sklearn, mlserver_xgboost'"],
    "ovms": ["ovms-stand-in --help"],
    "torchserve": ["torchserve --version"],
    "triton": ["sh -c 'tritonserver --help 2>&1 | grep model-control-mode'", "curl --version"],
}


@pytest.mark.skipif(
    shutil.which("buildah") is None, reason="buildah runs the programs of an image without a container"
)
def test_its_programs_start(image: Image) -> None:
    source = f"docker-archive:{FOLDER / image.name}.tar"
    made = subprocess.run(["buildah", "from", "--quiet", source], capture_output=True, text=True, check=True)
    container = made.stdout.strip()
    try:
        for command in COMMANDS[image.name]:
            run = ["buildah", "run", "--isolation", "chroot", container, "--", *shlex.split(command)]
            done = subprocess.run(run, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    finally:
        subprocess.run(["buildah", "rm", container], capture_output=True, check=True)

"""Images of custom runtimes' examples on ours and on MLServer's: `make test-images` builds and starts them.

Those on a plain Python image are not built here: that image comes from a registry of images.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from local.home import Home
from tests.runtimes.conftest import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = Home.from_environment().root / "images"

pytestmark = pytest.mark.timeout(300)


def buildah(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(
        ["buildah", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert not check or done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah builds and runs without containers")
@pytest.mark.parametrize(
    ("base", "file", "command", "said"),
    [
        (
            "adapter",
            "own-adapter/Containerfile.adapter",
            ["modelmesh", "adapter", "adapter:DictionaryAdapter"],
            "CONTAINER_MEM_REQ_BYTES is not set",
        ),
        (
            "mlserver",
            "mlserver-class/Containerfile",
            [
                "python3",
                "-c",
                "import mlserver.settings as s; print(s.ModelSettings(name='a').implementation)",
            ],
            "<class 'topic_model.TopicModel'>",
        ),
    ],
)
def test_the_image_of_an_example_has_what_it_needs(
    base: str, file: str, command: Sequence[str], said: str
) -> None:
    archive = FOLDER / f"{base}.tar"
    if not archive.exists():
        pytest.skip(f"{archive} is missing: make images images-servers")
    tag = f"localhost/example-{base}"
    buildah("pull", "--quiet", f"docker-archive:{archive}")
    try:
        source = EXAMPLES / file
        buildah(
            "build",
            "--quiet",
            "--isolation",
            "chroot",
            "--file",
            str(source),
            "--tag",
            tag,
            str(source.parent),
        )
        container = buildah("from", "--quiet", tag).strip()
        try:
            assert said in buildah("run", "--isolation", "chroot", container, "--", *command, check=False)
        finally:
            buildah("rm", container)
    finally:
        buildah("rmi", tag, check=False)

"""The manifests and images of the examples are ones that the controller and a strict namespace take."""

from __future__ import annotations

import importlib.metadata
import re
from typing import TYPE_CHECKING

import pytest
import yaml

from api.v1alpha1 import ServingRuntime
from controller.runtime_validation import problems
from tests.runtimes.conftest import EXAMPLES

if TYPE_CHECKING:
    from pathlib import Path

RUNTIMES = sorted(EXAMPLES.glob("*/runtime*.yaml"))


@pytest.mark.parametrize("file", RUNTIMES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_runtime_is_valid_and_keeps_to_restricted_pod_security(file: Path) -> None:
    manifest = yaml.safe_load(file.read_text())
    assert problems(ServingRuntime.parse(manifest).spec, ["mlserver"]) == []
    for container in manifest["spec"]["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }


def test_every_example_has_a_runtime_a_model_a_profile_and_an_image() -> None:
    for example in {file.parent for file in RUNTIMES}:
        for pattern in ("isvc*.yaml", "local-profile*.yaml", "Containerfile*", "models/*", "README.md"):
            assert list(example.glob(pattern)), f"{example.name} has no {pattern}"


@pytest.mark.parametrize(
    "file", sorted(EXAMPLES.glob("*/Containerfile*")), ids=lambda file: f"{file.parent.name}/{file.name}"
)
def test_an_image_has_a_user_files_that_are_there_and_our_own_version(file: Path) -> None:
    instructions = [line.split() for line in file.read_text().splitlines() if line and line[0] not in "# "]
    for _, *sources, _ in (words for words in instructions if words[0] == "COPY"):
        for source in (word for word in sources if not word.startswith("--")):
            assert (file.parent / source).exists(), f"{source} is not in {file.parent.name}"
    bases = re.findall(r"docker\.io/(.+):(.+)", file.read_text())
    assert bases
    for name, tag in bases:
        if name.startswith("modelmesh/"):
            assert tag == importlib.metadata.version("modelmesh")
        else:
            assert name == "seldonio/mlserver" or ["USER", "2000"] in instructions

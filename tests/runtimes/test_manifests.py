"""The manifests of the examples are ones that the controller and a strict namespace take."""

from __future__ import annotations

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

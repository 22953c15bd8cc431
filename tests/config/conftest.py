"""Kustomizations of config/ as kubectl builds them."""

import functools
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from local import tools
from local.home import Home

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def kubectl() -> str:
    return str(tools.ensure(tools.KUBECTL, Home.from_environment().tools))


@pytest.fixture(scope="session")
def built(kubectl: str) -> Callable[[str], str]:
    """Builds a kustomization below config/."""

    @functools.cache
    def build(name: str) -> str:
        done = subprocess.run(
            [kubectl, "kustomize", f"config/{name}"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return build


def objects(text: str) -> list[dict[str, Any]]:
    return [obj for obj in yaml.load_all(text, Loader=yaml.CSafeLoader) if obj]

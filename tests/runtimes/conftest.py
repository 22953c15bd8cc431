"""One local cluster: every example of `runtimes/examples`, a scaffolded runtime, and one on Unix sockets."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import Machine, machine_in, processes_of

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parents[2] / "runtimes" / "examples"
SCAFFOLDED = "scorer"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what starts real servers, and gives it the time that they take."""
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def scaffolded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `modelmesh scaffold runtime` makes."""
    parent = tmp_path_factory.mktemp("scaffold")
    command = [sys.executable, "-m", "modelmesh", "scaffold", "runtime", SCAFFOLDED]
    environment = {"PYTHONPATH": str(EXAMPLES.parents[1])}
    done = subprocess.run(command, cwd=parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return parent / SCAFFOLDED


def on_sockets(text: str) -> str:
    """The manifest of own-server with both endpoints on Unix sockets of one folder, behind the puller."""
    return (
        text.replace("name: own-server\n", "name: own-server-sockets\n", 1)
        .replace("grpcEndpoint: port:8085", "grpcEndpoint: unix:///run/spi/grpc.sock")
        .replace("grpcDataEndpoint: port:8085", "grpcDataEndpoint: unix:///run/spi/grpc.sock")
        .replace(
            "      env:\n", "      env:\n        - {name: ENDPOINT, value: 'unix:///run/spi/grpc.sock'}\n"
        )
    )


@dataclass
class Cluster:
    """A running cluster and what was deployed on it."""

    machine: Machine
    scaffolded: Path


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, scaffolded: Path) -> Iterator[Cluster]:
    """All runtimes deployed, and the models of the examples in its bucket."""
    machine = machine_in(tmp_path_factory.mktemp("c") / "home")
    sockets = tmp_path_factory.mktemp("manifests") / "sockets.yaml"
    sockets.write_text(on_sockets((EXAMPLES / "own-server" / "runtime.yaml").read_text()))
    profiles = [*EXAMPLES.glob("*/local-profile*.yaml"), scaffolded / "local-profile.yaml"]
    manifests = [*EXAMPLES.glob("*/runtime*.yaml"), sockets, scaffolded / "runtime.yaml"]
    options = [
        *(word for profile in profiles for word in ("--profile", str(profile))),
        *(word for manifest in manifests for word in ("--file", str(manifest))),
    ]
    try:
        machine.local("up", "--detach", "--no-samples", "--runtimes", "", *options)
        machine.local(
            "put", str(EXAMPLES / "own-server" / "models" / "linear.json"), "own-server/linear.json"
        )
        machine.local("put", str(scaffolded / "models" / "linear.json"), f"{SCAFFOLDED}/linear.json")
        machine.local("put", str(EXAMPLES / "own-adapter" / "models"), "dictionaries")
        machine.local(
            "put", str(EXAMPLES / "mlserver-class" / "models" / "topics.json"), "topics/topics.json"
        )
        yield Cluster(machine, scaffolded)
    finally:
        machine.local("down")
    assert processes_of(machine.home.root) == []

"""What `modelmesh scaffold runtime` makes works as it is, and keeps the contract."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from modelmesh.conformance.main import main as conformance
from modelmesh.scaffold import main
from tests.runtimes.conftest import SCAFFOLDED
from tests.store.etcd_server import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def serving(folder: Path, endpoint: str) -> Iterator[None]:
    """Runs the scaffolded server as its README says."""
    environment = {"PATH": os.environ["PATH"], "ENDPOINT": endpoint, "MODEL_LIBRARY": str(folder / "models")}
    process = subprocess.Popen([sys.executable, "server.py"], cwd=folder, env=environment)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def options(folder: Path) -> list[str]:
    return ["--model-type", "linear", "--infer", str(folder / "request.json"), "--start-timeout", "20"]


@pytest.mark.timeout(240)
def test_the_scaffolded_server_keeps_the_contract(
    scaffolded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = {"weights": [2, -1, 0.5], "bias": 1, "padding": [0.5] * 300_000}
    (tmp_path / "large.json").write_text(json.dumps(large))
    (tmp_path / "broken.json").write_text('{"weights": "heavy"}')
    model = ["--model-path", str(tmp_path / "large.json"), "--broken-path", str(tmp_path / "broken.json")]
    endpoint = f"port:{free_port()}"
    with serving(scaffolded, endpoint):
        status = conformance([endpoint, *model, *options(scaffolded)])
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert "The runtime keeps the contract." in printed


def test_it_serves_its_library_over_a_unix_socket(
    scaffolded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = f"unix:{tmp_path}/spi.sock"
    checks = ["--check", "unload-empties", "--check", "infer-not-loaded"]
    with serving(scaffolded, endpoint):
        status = conformance([endpoint, "--model-path", "linear.json", *options(scaffolded), *checks])
        mode = (tmp_path / "spi.sock").stat().st_mode
    assert status == 0, capsys.readouterr().out
    assert stat.S_IMODE(mode) == 0o777, "the mesh may run as another user"


def test_every_file_has_the_new_name_and_none_the_old(scaffolded: Path) -> None:
    every = (file for file in scaffolded.rglob("*") if file.is_file() and file.suffix != ".pyc")
    files = {str(file.relative_to(scaffolded)) for file in every}
    assert {"server.py", "runtime.yaml", "Containerfile", "protocol/model_runtime_pb2_grpc.py"} <= files
    assert not [file for file in files if "own-server" in (scaffolded / file).read_text()]
    runtime = yaml.safe_load((scaffolded / "runtime.yaml").read_text())
    assert runtime["metadata"]["name"] == SCAFFOLDED
    assert runtime["spec"]["containers"][0]["image"] == f"example/{SCAFFOLDED}:1"


@pytest.mark.parametrize("name", ["", "Upper", "7up", "a_b", "end-", "x" * 41, "../x", "null", "on"])
def test_a_name_that_no_runtime_can_have_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["runtime", name]) == 2
    assert "lower-case letters" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_what_is_there_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("precious")
    assert main(["runtime", "mine", "--into", str(tmp_path)]) == 2
    assert "is there already" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "mine").read_text() == "precious"
    assert main(["runtime", "mine", "--into", str(tmp_path / "mine" / "below")]) == 2

"""The command: what it says when it cannot start."""

import os
import socket
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from adapters import main as entry
from adapters.main import find_adapter, main
from adapters.mlserver import MLServerAdapter


def test_an_unknown_type_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tensorflow"]) == 1
    error = capsys.readouterr().err
    assert error.startswith('modelmesh adapter tensorflow: unknown server type "tensorflow"; known types: ')
    assert "mlserver, " in error
    assert error.count("\n") == 1


def test_a_command_line_without_a_type_shows_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: modelmesh adapter TYPE" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "mlserver" in capsys.readouterr().out


def test_an_installed_package_adds_a_server_type(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine", "adapters.mlserver:MLServerAdapter", entry.ENTRY_POINT_GROUP)

    def entry_points(**wanted: str) -> EntryPoints:
        return EntryPoints([point]).select(**wanted)

    monkeypatch.setattr(entry, "entry_points", entry_points)
    assert find_adapter("mine") is MLServerAdapter
    assert {"mine", "mlserver", "triton"} <= set(entry.known_types())


def test_a_class_of_ones_own_is_named_by_its_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert find_adapter("adapters.mlserver:MLServerAdapter") is MLServerAdapter
    for wrong, why in {
        "no.such:Adapter": "No module named 'no'",
        "adapters.mlserver:Missing": "has no attribute 'Missing'",
        "adapters.mlserver:JSON": "not a subclass of adapters.sdk.ServerAdapter",
        ":Adapter": "Empty module name",
    }.items():
        assert main([wrong]) == 1
        assert why in capsys.readouterr().err


def command(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "modelmesh", "adapter", "mlserver"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_bad_variables_end_the_process_with_one_line() -> None:
    done = command(CONTAINER_MEM_REQ_BYTES="100")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "must be more than MEM_BUFFER_BYTES" in done.stderr


def test_a_taken_port_ends_the_process_with_its_address(tmp_path: object) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = command(CONTAINER_MEM_REQ_BYTES="1073741824", ADAPTER_PORT=port, ROOT_MODEL_DIR=str(tmp_path))
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr

"""The puller keeps the contract for the server behind it, which listens on a Unix socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from modelmesh.conformance.main import main as conformance
from tests.runtimes.conftest import EXAMPLES
from tests.store.etcd_server import free_port

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = EXAMPLES / "own-server"


@pytest.mark.timeout(240)
def test_a_server_on_a_socket_keeps_the_contract_behind_the_puller(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    web, port = str(free_port()), str(free_port())
    for folder in ("www", "secret"):
        (tmp_path / folder).mkdir()
    (tmp_path / "secret" / "web").write_text(json.dumps({"type": "http", "url": f"http://127.0.0.1:{web}"}))
    large = {"weights": [2, -1, 0.5], "bias": 1, "padding": [0.5] * 300_000}
    (tmp_path / "www" / "large.json").write_text(json.dumps(large))
    (tmp_path / "www" / "broken.json").write_text('{"weights": "heavy"}')
    socket = f"unix://{tmp_path}/spi.sock"
    environment = os.environ | {
        "ENDPOINT": socket,
        "MODEL_SERVER_ENDPOINT": socket,
        "PORT": port,
        "ROOT_MODEL_DIR": str(tmp_path / "models"),
        "STORAGE_CONFIG_DIR": str(tmp_path / "secret"),
    }
    commands = (
        [
            sys.executable,
            "-m",
            "http.server",
            web,
            "--bind",
            "127.0.0.1",
            "--directory",
            str(tmp_path / "www"),
        ],
        [sys.executable, str(EXAMPLE / "server.py")],
        [sys.executable, "-m", "modelmesh", "puller"],
    )
    with ExitStack() as stack:
        for command in commands:
            process = stack.enter_context(
                subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
            )
            stack.callback(process.terminate)
        status = conformance(
            [
                f"port:{port}",
                *("--data-endpoint", socket, "--start-timeout", "30"),
                *("--model-path", "large.json", "--broken-path", "broken.json", "--model-type", "linear"),
                *("--model-key", '{"storage_key": "web"}', "--infer", str(EXAMPLE / "request.json")),
            ]
        )
    assert status == 0, capsys.readouterr().out
    assert [path.name for path in (tmp_path / "models").iterdir() if not path.name.startswith("_")] == []

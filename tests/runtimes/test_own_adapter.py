"""The example of an adapter of one's own keeps the contract, before the example's server."""

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

EXAMPLE = EXAMPLES / "own-adapter"


@pytest.mark.timeout(240)
def test_the_adapter_of_the_example_keeps_the_contract(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ports = {name: str(free_port()) for name in ("PORT", "ADAPTER_PORT")}
    environment = (
        os.environ
        | ports
        | {
            "RUNTIME_PORT": ports["PORT"],
            "CONTAINER_MEM_REQ_BYTES": str(256 << 20),
            "MEM_BUFFER_BYTES": "0",
            "ROOT_MODEL_DIR": str(tmp_path / "models"),
            "PYTHONPATH": str(EXAMPLE),
        }
    )
    (tmp_path / "words.json").write_text(
        json.dumps({"cat": "purrs"} | {f"word {number}": "no meaning" for number in range(60_000)})
    )
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "request.bin").write_bytes(b"\x0a\x03cat")
    adapter = [sys.executable, "-m", "modelmesh", "adapter", "adapter:DictionaryAdapter"]
    with ExitStack() as stack:
        for command in ([sys.executable, str(EXAMPLE / "server.py")], adapter):
            process = stack.enter_context(subprocess.Popen(command, env=environment))
            stack.callback(process.terminate)
        status = conformance(
            [
                f"port:{ports['ADAPTER_PORT']}",
                *("--data-endpoint", f"port:{ports['PORT']}", "--start-timeout", "30"),
                *("--model-path", str(tmp_path / "words.json"), "--model-type", "dictionary"),
                *("--broken-path", str(tmp_path / "broken.json")),
                *("--infer", str(tmp_path / "request.bin"), "--infer-method", "dictionary.Dictionary/Define"),
            ]
        )
    assert status == 0, capsys.readouterr().out

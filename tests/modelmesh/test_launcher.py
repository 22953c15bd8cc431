import json
import subprocess
import sys

import pytest

from modelmesh import logs
from modelmesh.__main__ import SUBCOMMANDS, main


def test_without_arguments_lists_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in SUBCOMMANDS)


def test_unknown_subcommand_is_named_and_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve"]) == 2
    assert "no such command: serve" in capsys.readouterr().err


def test_missing_extra_is_named_with_the_way_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "configure", lambda _process: None)  # it would outlive this test
    monkeypatch.setitem(sys.modules, "mesh.main", None)
    assert main(["mesh"]) == 1
    assert "pip install 'modelmesh[mesh]'" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["mesh.main", "adapters.main"])
def test_pod_processes_load_neither_pydantic_nor_the_kubernetes_client(part: str) -> None:
    """Their memory is paid once in every pod."""
    script = f"import sys, json, {part}; print(json.dumps(sorted(m.split('.')[0] for m in sys.modules)))"
    loaded = json.loads(
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout
    )
    assert not {"pydantic", "kubernetes_asyncio", "typer"} & set(loaded)


def test_unknown_log_level_falls_back_to_info_and_says_so() -> None:
    script = (
        "from modelmesh import logs; import structlog; logs.configure('mesh');"
        "structlog.get_logger().info('kept'); structlog.get_logger().debug('dropped')"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, env={"LOG_LEVEL": "chatty"}
    )
    lines = [json.loads(line) for line in finished.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["unknown LOG_LEVEL, using INFO", "kept"]
    assert lines[0]["value"] == "CHATTY"
    assert {line["process"] for line in lines} == {"mesh"}

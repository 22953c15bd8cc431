import pytest

from local.home import Home
from local.main import main
from local.node import base_environment, logs_of, without_proxy


@pytest.fixture(autouse=True)
def own_home(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELMESH_HOME", str(home.root))
    monkeypatch.setenv("MODELMESH_CACHE", str(home.cache))


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("up", "down", "status", "logs", "kubeconfig", "quickstart"))


def test_an_error_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: no local cluster runs with home ")
    assert captured.err.count("\n") == 1


def test_stopping_nothing_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down"]) == 0
    assert "No local cluster runs" in capsys.readouterr().out


def test_a_wrong_command_line_is_status_2() -> None:
    assert main(["up", "--nonsense"]) == 2


def test_logs_are_found_by_the_start_of_a_pods_name(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    folder = logs_of(home, "modelmesh-serving", "web-1-abc", "c")
    folder.mkdir(parents=True)
    (folder / "0.log").write_text("first\n")
    (folder / "1.log").write_text("second\n")
    assert main(["logs", "web"]) == 0
    text = capsys.readouterr().out
    assert text.index("first") < text.index("second")
    assert main(["logs", "other"]) == 2
    assert "web-1-abc" in capsys.readouterr().err


def test_a_process_gets_few_variables_and_no_proxy_for_this_machine() -> None:
    given = {"PATH": "/bin", "HTTPS_PROXY": "http://proxy", "NO_PROXY": "internal", "AWS_SECRET": "x"}
    found = base_environment(given)
    assert found["PATH"] == "/bin"
    assert found["HTTPS_PROXY"] == "http://proxy"
    assert found["NO_PROXY"] == found["no_proxy"] == "internal,127.0.0.1,localhost"
    assert "AWS_SECRET" not in found
    assert without_proxy({})["no_proxy"] == "127.0.0.1,localhost"

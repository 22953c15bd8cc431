import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from local import comparison, quickstart
from local.errors import QuickstartFailedError
from local.home import Home, Settings
from local.quickstart import Options, Walk


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def walk(home: Home, output: io.StringIO, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Walk:
    for name in ("kubectl", "grpcurl"):
        (tmp_path / name).write_text("#!/bin/sh\necho fake $0 $KUBECONFIG\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Walk(home, Settings(), Console(file=output, width=200))


def test_a_command_is_shown_with_its_output(walk: Walk, output: io.StringIO) -> None:
    assert walk.shell("echo hello") == "hello\n"
    assert output.getvalue() == "\n$ echo hello\nhello\n"


def test_a_manifest_is_shown_as_a_user_would_type_it(walk: Walk, output: io.StringIO) -> None:
    assert "fake" in walk.shell("kubectl apply", stdin="kind: X\n")
    assert "$ kubectl apply -f - <<EOF\nkind: X\nEOF\n" in output.getvalue()


def test_commands_talk_to_this_cluster(walk: Walk, home: Home) -> None:
    assert str(home.kubeconfig) in walk.shell("kubectl get pods")


def test_a_failing_command_ends_the_quickstart_with_its_output(walk: Walk) -> None:
    with pytest.raises(QuickstartFailedError, match=r"`echo why; false` ended with status 1: why"):
        walk.shell("echo why; false")


def test_missing_output_ends_the_quickstart_and_is_named(walk: Walk) -> None:
    walk.require("READY True", "READY", "True")
    with pytest.raises(QuickstartFailedError, match="'False'"):
        walk.require("READY True", "False")


def test_a_condition_that_does_not_come_ends_the_quickstart(
    walk: Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quickstart, "_READY_SECONDS", 0.0)
    with pytest.raises(QuickstartFailedError, match=r"(?s)for the model.*Loading"):
        walk._until(lambda: False, "the model", lambda: "Loading")


def test_one_wrong_answer_fails_the_comparison(walk: Walk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "expected", lambda *_: ([[0.0], [1.0]], [3, 4]))
    monkeypatch.setattr(comparison, "ask_grpc", lambda *_: [3, 4])
    monkeypatch.setattr(comparison, "ask_rest", lambda *_: [3, 5])
    with pytest.raises(QuickstartFailedError, match=r"1 of 2 digits .* by REST; the first: 5 instead of 4"):
        walk.compare(Options())


def test_the_digit_is_eight_by_eight() -> None:
    assert len(quickstart.EIGHT) == 64
    assert max(quickstart.EIGHT) == 16

import subprocess
from pathlib import Path

import pytest

from local import environments
from local.errors import EnvironmentFailedError


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(environments, "_RUNTIMES", tmp_path / "runtimes")
    file = tmp_path / "runtimes" / "fake" / "requirements.lock"
    file.parent.mkdir(parents=True)
    file.write_text("")
    return file


def test_an_environment_is_built_once(lock: Path, tmp_path: Path) -> None:
    del lock
    environment = environments.ensure("fake", tmp_path / "environments")
    python = environment / "bin" / "python"
    assert subprocess.run([python, "-c", "pass"], check=True).returncode == 0
    marker = environment / "marker"
    marker.touch()
    assert environments.ensure("fake", tmp_path / "environments") == environment
    assert marker.exists()


def test_a_changed_lock_is_another_environment(lock: Path, tmp_path: Path) -> None:
    before = environments.locate("fake", tmp_path)
    lock.write_text("# changed\n")
    assert environments.locate("fake", tmp_path) != before


def test_a_half_built_environment_is_built_again(lock: Path, tmp_path: Path) -> None:
    del lock
    half = environments.locate("fake", tmp_path)
    (half / "bin").mkdir(parents=True)
    assert not environments.is_built(half)
    assert environments.is_built(environments.ensure("fake", tmp_path))


def test_a_failed_build_says_why_and_leaves_nothing(lock: Path, tmp_path: Path) -> None:
    lock.write_text("not a requirement\n")
    with pytest.raises(EnvironmentFailedError, match="environment of fake could not be built"):
        environments.ensure("fake", tmp_path)
    assert not environments.locate("fake", tmp_path).exists()


def test_an_unknown_environment_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailedError, match="unknown"):
        environments.locate("unknown", tmp_path)


def test_a_last_step_runs_in_the_new_environment_and_belongs_to_its_name(lock: Path, tmp_path: Path) -> None:
    before = environments.locate("fake", tmp_path)
    finish = lock.with_name("finish.py")
    finish.write_text("import pathlib, sys; pathlib.Path(sys.prefix, 'finished').touch()")
    environment = environments.ensure("fake", tmp_path)
    assert environment != before
    assert (environment / "finished").exists()


def test_a_last_step_that_fails_fails_the_build(lock: Path, tmp_path: Path) -> None:
    lock.with_name("finish.py").write_text("import sys; sys.exit('no stub for this Python')")
    with pytest.raises(EnvironmentFailedError, match="no stub for this Python"):
        environments.ensure("fake", tmp_path)
    assert not environments.locate("fake", tmp_path).exists()

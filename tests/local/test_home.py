from pathlib import Path

import pytest

from local.errors import AlreadyRunningError, LocalError, NotRunningError
from local.home import ClusterState, Home, Settings


def test_the_home_and_its_cache_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MODELMESH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MODELMESH_CACHE", raising=False)
    assert Home.from_environment() == Home(tmp_path / "home", tmp_path / "home" / "cache")
    monkeypatch.setenv("MODELMESH_CACHE", str(tmp_path / "shared"))
    assert Home.from_environment().tools == tmp_path / "shared" / "tools"


def test_one_cluster_has_a_home_at_a_time(home: Home) -> None:
    with home.lock():
        assert home.is_running()
        with pytest.raises(AlreadyRunningError, match="modelmesh local down"):
            home.lock()
    assert not home.is_running()
    assert home.wait_until_stopped(0)


def test_the_state_of_a_running_cluster_can_be_read(home: Home) -> None:
    state = ClusterState(7, Settings(manifests=("a.yaml",)), ready=True, s3_endpoint="http://x")
    with home.lock():
        home.write_state(state)
        assert home.read_state() == state


def test_a_state_without_a_cluster_is_not_believed(home: Home) -> None:
    with home.lock():
        home.write_state(ClusterState(7, Settings()))
    with pytest.raises(NotRunningError, match="modelmesh local up"):
        home.read_state()


def test_a_broken_state_names_its_file(home: Home) -> None:
    with home.lock():
        (home.root / "state.json").write_text("{")
        with pytest.raises(LocalError, match=r"state\.json cannot be read"):
            home.read_state()

import base64
from pathlib import Path

import pytest

from api.core import ConfigMap, KeyToPath, Secret, Volume
from local.errors import PodSpecError
from local.volumes import files_of, require_short, select, unsupported, write_projected


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.startswith("..")}


def test_a_folder_too_long_for_sockets_is_refused_with_what_to_do() -> None:
    require_short(Path("/") / ("x" * 90))
    with pytest.raises(PodSpecError, match="choose a shorter MODELMESH_HOME"):
        require_short(Path("/") / ("x" * 91))


def test_a_secret_gives_its_decoded_entries() -> None:
    assert files_of(Secret.parse({"data": {"key": encoded("secret")}})) == {"key": b"secret"}


def test_a_config_map_gives_text_and_binary_entries() -> None:
    source = ConfigMap.parse({"data": {"text": "plain"}, "binaryData": {"blob": encoded("bytes")}})
    assert files_of(source) == {"text": b"plain", "blob": b"bytes"}


def test_a_broken_entry_names_object_and_key() -> None:
    secret = Secret.parse({"metadata": {"name": "broken"}, "data": {"key": "%%%"}})
    with pytest.raises(PodSpecError, match=r"Secret broken: entry 'key'"):
        files_of(secret)


def test_items_choose_keys_and_paths() -> None:
    items = [KeyToPath(key="a", path="sub/renamed")]
    assert select({"a": b"1", "b": b"2"}, items, "Secret 's'") == {"sub/renamed": b"1"}


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "a/../../b"])
def test_a_path_cannot_leave_the_volume(path: str) -> None:
    with pytest.raises(PodSpecError, match="relative"):
        select({"a": b"1"}, [KeyToPath(key="a", path=path)], "Secret 's'")


def test_a_missing_item_is_an_error() -> None:
    with pytest.raises(PodSpecError, match="no entry 'missing'"):
        select({}, [KeyToPath(key="missing", path="x")], "Secret 's'")


def test_files_appear_change_and_disappear(tmp_path: Path) -> None:
    assert write_projected(tmp_path, {"a": b"1", "b": b"2"})
    assert contents(tmp_path) == {"a": b"1", "b": b"2"}
    assert write_projected(tmp_path, {"a": b"new", "c": b"3"})
    assert contents(tmp_path) == {"a": b"new", "c": b"3"}
    assert not write_projected(tmp_path, {"a": b"new", "c": b"3"})


def test_a_change_is_one_step_for_a_reader(tmp_path: Path) -> None:
    """Every file is reached through one link, which a rename replaces; old generations are removed."""
    write_projected(tmp_path, {"a": b"1", "b": b"1"})
    assert {str((tmp_path / name).readlink()) for name in "ab"} == {"..data/a", "..data/b"}
    before = (tmp_path / "..data").readlink()
    write_projected(tmp_path, {"a": b"2", "b": b"2"})
    assert (tmp_path / "..data").readlink() != before
    assert not (tmp_path / before).exists()


def test_nested_paths_are_projected(tmp_path: Path) -> None:
    write_projected(tmp_path, {"sub/one": b"1", "sub/two": b"2"})
    assert (tmp_path / "sub" / "two").read_bytes() == b"2"


def test_an_unknown_kind_of_volume_is_named() -> None:
    volume = Volume.parse({"name": "data", "nfs": {"server": "nas"}})
    assert "nfs" in str(unsupported(volume))

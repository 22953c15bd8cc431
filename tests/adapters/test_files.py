"""Names stay inside their root, sizes count what is there."""

from pathlib import Path

import pytest

from adapters.files import clear_folder, disk_size, folder_name, secure_join, write_whole


@pytest.mark.parametrize(
    ("parts", "joined"),
    [
        (("../../b.txt",), "a/b.txt"),
        (("/b",), "a/b"),
        (("../../b", "c.txt"), "a/b/c.txt"),
        (("./x/../y//z",), "a/y/z"),
        (("",), "a"),
    ],
)
def test_a_joined_path_never_leaves_its_root(parts: tuple[str, ...], joined: str) -> None:
    assert secure_join(Path("a"), *parts) == Path(joined)


@pytest.mark.parametrize(
    ("model_id", "name"),
    [
        ("example-sklearn-isvc__isvc-6b2eb0b8bf", "example-sklearn-isvc__isvc-6b2eb0b8bf"),
        ("a.b:c", "a.b%3Ac"),
        ("a/b", "a%2Fb"),
        ("..", "%2E."),
        ("_mlserver_models", "%5Fmlserver_models"),
        ("", "%"),
    ],
)
def test_a_model_id_becomes_one_safe_file_name(model_id: str, name: str) -> None:
    assert folder_name(model_id) == name


def test_long_model_ids_stay_different_and_fit_a_file_system() -> None:
    first, second = folder_name("x" * 300), folder_name("x" * 301)
    assert first != second
    assert max(len(first), len(second)) < 255


def test_disk_size_follows_links_once(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "sub").mkdir(parents=True)
    (model / "a").write_bytes(b"12345")
    (model / "sub" / "b").write_bytes(b"678")
    (model / "sub" / "loop").symlink_to(model)
    (tmp_path / "outside").write_bytes(b"9")
    (model / "link").symlink_to(tmp_path / "outside")
    link = tmp_path / "link-to-model"
    link.symlink_to(model)
    assert disk_size(link) == 9
    assert disk_size(model / "a") == 5


def test_clearing_a_folder_removes_links_and_not_their_targets(tmp_path: Path) -> None:
    kept, folder = tmp_path / "kept", tmp_path / "folder"
    kept.mkdir()
    (kept / "file").write_text("x")
    for name in ("one", "two", "_other"):
        (folder / name).mkdir(parents=True)
    (folder / "link").symlink_to(kept)
    clear_folder(folder, keep={"two"}, keep_prefixes=("_",))
    assert sorted(path.name for path in folder.iterdir()) == ["_other", "two"]
    assert (kept / "file").exists()
    clear_folder(tmp_path / "absent")


def test_a_file_is_written_whole_with_its_mode(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", b"text", mode=0o640)
    assert (tmp_path / "file").read_bytes() == b"text"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

"""Contents that are kept: found again, shared, bounded, and safe from what servers do to their models."""

import os
from pathlib import Path

import pytest

from adapters.puller.content import Contents


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "sub" / "deep").mkdir(parents=True)
    (source / "a").write_bytes(b"a" * 60)
    (source / "sub" / "deep" / "b").write_bytes(b"b" * 40)
    return source


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    return Contents(tmp_path / "contents", 250)


def linked(contents: Contents, tmp_path: Path, fingerprint: str, model: str) -> Path | None:
    target = tmp_path / "out" / model
    target.mkdir(parents=True)
    return target if contents.link(fingerprint, model, target) else None


def test_a_content_is_found_again_whole(contents: Contents, source: Path, tmp_path: Path) -> None:
    contents.keep("one", "m", source)
    target = linked(contents, tmp_path, "one", "n")
    assert target
    assert (target / "a").read_bytes() == b"a" * 60
    assert (target / "sub" / "deep" / "b").read_bytes() == b"b" * 40
    assert (target / "a").stat().st_ino == (source / "a").stat().st_ino
    assert linked(contents, tmp_path, "other", "o") is None


def test_what_is_added_to_a_model_is_no_content(contents: Contents, source: Path, tmp_path: Path) -> None:
    contents.keep("one", "m", source)
    (source / "__pycache__").mkdir()
    (source / "a").unlink()
    target = linked(contents, tmp_path, "one", "n")
    assert target
    assert sorted(path.name for path in target.iterdir()) == ["a", "sub"]


def test_files_are_read_only(contents: Contents, source: Path) -> None:
    contents.keep("one", "m", source)
    assert (source / "a").stat().st_mode & 0o222 == 0


def test_the_bound_removes_what_was_used_longest_ago_and_is_not_in_use(
    contents: Contents, source: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        contents.keep(name, name, source)
    contents.release({"one", "two"})
    assert linked(contents, tmp_path, "one", "again")
    contents.release({"again"})
    contents.keep("three", "three", source)
    assert sorted(path.name for path in (tmp_path / "contents").iterdir()) == ["one", "three"]


def test_what_is_in_use_stays(contents: Contents, source: Path, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        contents.keep(name, name, source)
    assert sorted(path.name for path in (tmp_path / "contents").iterdir()) == ["one", "three", "two"]
    contents.release_all_but({"three"})
    contents.make_room(0)
    assert len(list((tmp_path / "contents").iterdir())) == 2


def test_a_model_larger_than_the_bound_is_not_kept(source: Path, tmp_path: Path) -> None:
    for limit in (0, 99):
        Contents(tmp_path / "contents", limit).keep("one", "m", source)
        assert not (tmp_path / "contents").exists()


def test_another_process_finds_contents_and_removes_drafts(
    contents: Contents, source: Path, tmp_path: Path
) -> None:
    contents.keep("old", "m", source)
    contents.keep("new", "n", source)
    os.utime(tmp_path / "contents" / "old", (1, 1))
    (tmp_path / "contents" / ".draft-half").mkdir()
    after = Contents(tmp_path / "contents", 250)
    assert sorted(path.name for path in (tmp_path / "contents").iterdir()) == ["new", "old"]
    after.keep("third", "o", source)
    assert sorted(path.name for path in (tmp_path / "contents").iterdir()) == ["new", "third"]
    assert linked(after, tmp_path, "new", "p")


def test_a_full_disk_makes_contents_go(
    contents: Contents, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        contents.keep(name, name, source)
    contents.release({"one", "two"})
    free = iter([10, 110, 110])
    monkeypatch.setattr("adapters.puller.content._free", lambda _: next(free))
    assert contents.free_disk(100) == 110
    assert [path.name for path in (tmp_path / "contents").iterdir()] == ["two"]


def test_a_content_that_cannot_be_linked_is_forgotten(
    contents: Contents, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents.keep("one", "m", source)

    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("adapters.puller.content.os.link", refuse)
    assert linked(contents, tmp_path, "one", "n") is None
    assert list((tmp_path / "out" / "n").iterdir()) == []
    contents.keep("two", "m", source)
    assert list((tmp_path / "contents").iterdir()) == []

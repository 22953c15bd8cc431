"""Which objects belong to a model, and what their files are called."""

import pytest

from adapters.errors import StorageConfigError
from adapters.puller.targets import RemoteObject, Target, plan, without_collisions


def files(keys: list[str], remote: str, local: str) -> dict[str, str]:
    downloads = plan([RemoteObject(key, 1) for key in keys], Target(remote, local))
    return {item.source.key: item.name for item in downloads}


@pytest.mark.parametrize(
    ("keys", "remote", "local", "expected"),
    [
        (["dir/a", "dir/sub/b"], "dir", "", {"dir/a": "a", "dir/sub/b": "sub/b"}),
        (["dir/a"], "dir/", "", {"dir/a": "a"}),
        (["x/some_file"], "x/some_file", "some_name.json", {"x/some_file": "some_name.json"}),
        (["other/a", "other/b/c"], "other", "local", {"other/a": "local/a", "other/b/c": "local/b/c"}),
        (["file"], "file", "local/some_other_name.ext", {"file": "local/some_other_name.ext"}),
        (
            ["p/yet_another_file"],
            "p/yet_another_file",
            "local/",
            {"p/yet_another_file": "local/yet_another_file"},
        ),
        (["file"], "file", "", {"file": "file"}),
        (["model/a", "model-2/a", "model2"], "model", "m", {"model/a": "m/a"}),
        (["file"], "file/", "m", {}),
    ],
)
def test_objects_are_found_and_named(
    keys: list[str], remote: str, local: str, expected: dict[str, str]
) -> None:
    assert files(keys, remote, local) == expected


def test_empty_files_stay_and_folder_markers_go() -> None:
    listed = [RemoteObject("m/sub", 0), RemoteObject("m/sub/a", 3), RemoteObject("m/empty", 0)]
    names = [item.source.key for item in plan(listed, Target("m", "m"))]
    assert names == ["m/sub/a", "m/empty"]


@pytest.mark.parametrize("key", ["dir/../../up", "dir//a", "dir/./a", "dir/a/..", "dir/a\0b"])
def test_a_key_that_is_no_file_name_is_named_and_never_written(key: str) -> None:
    with pytest.raises(StorageConfigError, match="cannot be a file"):
        files([key], "dir", "m")


@pytest.mark.parametrize(
    ("one", "other"),
    [(("dir/a", "a", "m"), ("dir/a/b", "a/b", "m")), (("x/f", "", "m/s"), ("dir/s", "s", "m"))],
)
def test_two_objects_never_share_a_place(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    downloads = []
    for key, relative, local in (one, other):
        remote = key.removesuffix(f"/{relative}") if relative else key
        downloads += plan([RemoteObject(key, 1)], Target(remote, local))
    with pytest.raises(StorageConfigError, match="the same place"):
        without_collisions(downloads)

"""Which objects belong to a model, and what their files are called."""

from pathlib import Path

import pytest

from adapters.puller.targets import RemoteObject, Target, plan

FOLDER = Path("/d")


def files(keys: list[str], remote: str, local: str) -> dict[str, str]:
    downloads = plan([RemoteObject(key, 1) for key in keys], Target(remote, local), FOLDER)
    return {item.source.key: str(item.file.relative_to(FOLDER)) for item in downloads}


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
        (["dir/../../up"], "dir", "m", {"dir/../../up": "up"}),
    ],
)
def test_objects_are_found_and_named(
    keys: list[str], remote: str, local: str, expected: dict[str, str]
) -> None:
    assert files(keys, remote, local) == expected


def test_empty_files_stay_and_folder_markers_go() -> None:
    listed = [RemoteObject("m/sub", 0), RemoteObject("m/sub/a", 3), RemoteObject("m/empty", 0)]
    names = [item.source.key for item in plan(listed, Target("m", "m"), FOLDER)]
    assert names == ["m/sub/a", "m/empty"]

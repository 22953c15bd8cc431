from __future__ import annotations

from typing import Any

import pytest

from controller.runtime.apiserver.jsonpath import compile_path

_OBJECT = {
    "spec": {"list": [{"name": "a", "n": 1}, {"name": "b", "n": 5}], "x.y": "dotted", "empty": []},
    "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]},
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.list[*].name", ["a", "b"]),
        (".spec.list[0].name", ["a"]),
        (".spec.list[-1].name", ["b"]),
        (".spec.list[7].name", []),
        (".spec.missing.deeper", []),
        (".spec['x.y']", ["dotted"]),
        (r".spec.x\.y", ["dotted"]),
        (".status.conditions[?(@.type=='Ready')].status", ["True"]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".spec.list[?(@.n>2)].name", ["b"]),
        (".spec.list[?(@.name)].n", [1, 5]),
        (".spec.empty[*].name", []),
        ("{.spec.list[0].n}", [1]),
        (".status.conditions[?(@.type=='Ready')].status[0]", []),
    ],
)
def test_path_finds(path: str, found: list[Any]) -> None:
    assert compile_path(path)(_OBJECT) == found


@pytest.mark.parametrize("path", [".a[", ".a[?(x)]", "..["])
def test_path_that_does_not_parse_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="JSONPath"):
        compile_path(path)

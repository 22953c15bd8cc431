from __future__ import annotations

from typing import Any

import pytest

from controller.runtime.apiserver import patches
from controller.runtime.errors import BadRequest, Invalid


def test_merge_patch_removes_by_null_and_replaces_lists() -> None:
    target = {"a": {"b": 1, "c": 2}, "l": [1, 2]}
    assert patches.merge(target, {"a": {"b": None, "d": {"e": None, "f": 1}}, "l": [3]}) == {
        "a": {"c": 2, "d": {"f": 1}},
        "l": [3],
    }
    assert target == {"a": {"b": 1, "c": 2}, "l": [1, 2]}


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([{"op": "add", "path": "/l/-", "value": 3}], {"a": {"b": 1}, "l": [1, 2, 3]}),
        ([{"op": "add", "path": "/l/0", "value": 0}], {"a": {"b": 1}, "l": [0, 1, 2]}),
        ([{"op": "replace", "path": "/a/b", "value": 5}], {"a": {"b": 5}, "l": [1, 2]}),
        ([{"op": "remove", "path": "/l/1"}], {"a": {"b": 1}, "l": [1]}),
        ([{"op": "move", "from": "/a/b", "path": "/c"}], {"a": {}, "l": [1, 2], "c": 1}),
        ([{"op": "copy", "from": "/a", "path": "/x~1y"}], {"a": {"b": 1}, "l": [1, 2], "x/y": {"b": 1}}),
        ([{"op": "test", "path": "/a/b", "value": 1}], {"a": {"b": 1}, "l": [1, 2]}),
    ],
)
def test_json_patch_operations(operations: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    assert patches.json_patch({"a": {"b": 1}, "l": [1, 2]}, operations) == expected


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/x"},
        {"op": "replace", "path": "/l/7", "value": 1},
        {"op": "test", "path": "/a/b", "value": 2},
        {"op": "bad", "path": "/a"},
        {"op": "add", "path": "a", "value": 1},
        {"op": "add", "path": 1, "value": 1},
    ],
)
def test_json_patch_that_does_not_fit_names_the_operation(operation: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=f"operation 0 .{operation['op']} {operation['path']}"):
        patches.json_patch({"a": {"b": 1}, "l": [1, 2]}, [operation])


def test_json_patch_operations_are_objects() -> None:
    with pytest.raises(BadRequest, match="operation 1 is no object"):
        patches.json_patch({"a": 1}, [{"op": "remove", "path": "/a"}, "remove /a"])  # type: ignore[list-item]


def test_strategic_merge_matches_list_entries_by_their_key() -> None:
    live = {
        "spec": {
            "containers": [
                {"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]},
                {"name": "b", "image": "2"},
            ],
            "tolerations": [{"key": "k"}],
        },
    }
    patch = {
        "spec": {
            "containers": [
                {"name": "a", "env": [{"name": "Y", "value": "2"}]},
                {"name": "b", "$patch": "delete"},
            ],
            "tolerations": [{"key": "other"}],
        },
    }
    assert patches.strategic(live, patch)["spec"] == {
        "containers": [
            {"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
        ],
        "tolerations": [{"key": "other"}],
    }


def test_strategic_merge_knows_ports_of_containers_and_services() -> None:
    container = {"ports": [{"containerPort": 80, "name": "a"}]}
    patched = patches.strategic(container, {"ports": [{"containerPort": 81}]})
    assert [port["containerPort"] for port in patched["ports"]] == [80, 81]
    service = patches.strategic({"ports": [{"port": 80}]}, {"ports": [{"port": 80, "name": "http"}]})
    assert service["ports"] == [{"port": 80, "name": "http"}]


def test_strategic_merge_directives() -> None:
    assert patches.strategic({"a": 1, "b": {"c": 1}}, {"b": {"$patch": "replace", "d": 2}}) == {
        "a": 1,
        "b": {"d": 2},
    }
    assert patches.strategic({"s": {"a": 1, "b": 2}}, {"s": {"$retainKeys": ["a"], "a": 3}}) == {
        "s": {"a": 3}
    }
    assert patches.strategic({"finalizers": ["x", "y"]}, {"$deleteFromPrimitiveList/finalizers": ["x"]}) == {
        "finalizers": ["y"],
    }
    ordered = patches.strategic(
        {"volumes": [{"name": "a"}, {"name": "b"}]},
        {
            "$setElementOrder/volumes": [{"name": "c"}, {"name": "b"}, {"name": "a"}],
            "volumes": [{"name": "c"}],
        },
    )
    assert [volume["name"] for volume in ordered["volumes"]] == ["c", "b", "a"]


def test_strategic_merge_needs_the_merge_key() -> None:
    with pytest.raises(BadRequest, match="merge key: name"):
        patches.strategic({"containers": [{"name": "a"}]}, {"containers": [{"image": "x"}]})

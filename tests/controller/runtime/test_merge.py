"""Three-way merge: what we set is brought back, what we dropped goes, what others set stays."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.runtime.merge import difference, fields_of, merge


def merged(desired: Any, live: Any, before: Any = None) -> Any:
    return merge(desired, live, fields_of(before) if before is not None else {})


def test_a_field_we_set_is_brought_back() -> None:
    assert merged({"replicas": 2}, {"replicas": 5}) == {"replicas": 2}


def test_a_field_of_others_stays() -> None:
    live = {"replicas": 2, "paused": True, "strategy": {"type": "RollingUpdate"}}
    assert merged({"replicas": 2}, live) == live


def test_a_field_we_set_before_and_not_now_goes() -> None:
    assert merged({"a": 1}, {"a": 1, "b": 2, "c": 3}, before={"a": 1, "b": 2}) == {"a": 1, "c": 3}


def test_labels_of_others_survive_when_we_drop_all_of_ours() -> None:
    live = {"labels": {"ours": "1", "theirs": "2"}}
    assert merged({}, live, before={"labels": {"ours": "1"}}) == {"labels": {"theirs": "2"}}
    assert merged({}, {"labels": {"ours": "1"}}, before={"labels": {"ours": "1"}}) == {}


def test_a_container_that_others_added_survives_and_one_that_we_dropped_goes() -> None:
    live = {"containers": [{"name": "mm"}, {"name": "old"}, {"name": "istio"}]}
    before = {"containers": [{"name": "mm"}, {"name": "old"}]}
    after = merged({"containers": [{"name": "mm", "image": "i"}]}, live, before)
    assert after == {"containers": [{"name": "mm", "image": "i"}, {"name": "istio"}]}


def test_an_environment_variable_that_we_dropped_goes() -> None:
    before = {
        "containers": [{"name": "mm", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}]
    }
    live = copy.deepcopy(before)
    live["containers"][0]["env"].append({"name": "THEIRS", "value": "3"})
    after = merged({"containers": [{"name": "mm", "env": [{"name": "B", "value": "2"}]}]}, live, before)
    assert [env["name"] for env in after["containers"][0]["env"]] == ["B", "THEIRS"]
    after = merged({"containers": [{"name": "mm"}]}, live, before)
    assert [env["name"] for env in after["containers"][0]["env"]] == ["THEIRS"]


def test_defaults_the_server_filled_in_are_no_difference() -> None:
    desired = {
        "ports": [{"containerPort": 8033}],
        "args": ["a", "b"],
        "sources": [{"secret": {"name": "s"}}],
        "volumes": [{"name": "v", "configMap": {"name": "c"}}],
    }
    live = {
        "ports": [{"containerPort": 8033, "protocol": "TCP"}],
        "args": ["a", "b"],
        "sources": [{"secret": {"name": "s", "optional": False}}],
        "volumes": [{"name": "v", "configMap": {"name": "c", "defaultMode": 420}}],
        "dnsPolicy": "ClusterFirst",
    }
    assert merged(desired, live, before=desired) == live


def test_a_volume_that_changes_its_source_keeps_nothing_of_the_old_one() -> None:
    before = {"volumes": [{"name": "v", "configMap": {"name": "c"}}]}
    live = {"volumes": [{"name": "v", "configMap": {"name": "c", "defaultMode": 420}}]}
    desired = {"volumes": [{"name": "v", "emptyDir": {}}]}
    assert merged(desired, live, before) == desired


def test_the_order_we_ask_for_is_made() -> None:
    live = {"containers": [{"name": "a"}, {"name": "x"}, {"name": "b"}]}
    assert merged({"containers": [{"name": "a"}, {"name": "b"}]}, live) == live
    after = merged({"containers": [{"name": "b"}, {"name": "a"}]}, live)
    assert [item["name"] for item in after["containers"]] == ["b", "a", "x"]


def test_ports_of_equal_number_are_told_apart_by_protocol() -> None:
    live = {
        "ports": [
            {"port": 53, "protocol": "TCP", "nodePort": 1},
            {"port": 53, "protocol": "UDP", "nodePort": 2},
        ]
    }
    after = merged({"ports": [{"port": 53}, {"port": 53, "protocol": "UDP", "name": "dns"}]}, live)
    assert after["ports"][1] == {"port": 53, "protocol": "UDP", "nodePort": 2, "name": "dns"}
    assert after["ports"][0] == live["ports"][0]


def test_a_list_without_identity_is_ours_as_a_whole() -> None:
    assert merged({"args": ["a"]}, {"args": ["a", "b"]}) == {"args": ["a"]}
    assert merged({"tolerations": []}, {"tolerations": [{"key": "k"}]}) == {"tolerations": []}


@pytest.mark.parametrize(
    ("ours", "stored", "same"),
    [
        ("1000m", "1", True),
        (1, "1", True),
        ("1Gi", "1024Mi", True),
        ("0.5", "500m", True),
        ("1e3", "1k", True),
        ("1Gi", "1G", False),
        ("2", "1", False),
        ("nonsense", "1", False),
    ],
)
def test_a_quantity_in_another_notation_is_no_difference(ours: Any, stored: Any, same: Any) -> None:
    after = merged({"limits": {"memory": ours}}, {"limits": {"memory": stored}})
    assert after == {"limits": {"memory": stored if same else ours}}


def test_an_empty_value_that_the_server_left_out_is_no_difference_once_it_was_sent() -> None:
    desired = {"env": [{"name": "A", "value": ""}], "hostNetwork": False}
    live = {"env": [{"name": "A"}]}
    assert merged(desired, live, before=desired) == live
    assert merged(desired, live) == desired


def test_finalizers_of_others_stay() -> None:
    live = {"finalizers": ["theirs", "ours"]}
    assert merged({}, live, before={"finalizers": ["ours"]}) == {"finalizers": ["theirs"]}
    assert merged({"finalizers": ["more"]}, live)["finalizers"] == ["more", "theirs", "ours"]


JSON_OBJECTS = st.dictionaries(
    st.sampled_from(["a", "b", "labels", "env", "args"]),
    st.recursive(
        st.integers(0, 3) | st.sampled_from(["x", "y"]) | st.lists(st.sampled_from(["x", "y"]), max_size=3),
        lambda inner: st.dictionaries(st.sampled_from(["a", "b", "name"]), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@given(before=JSON_OBJECTS, desired=JSON_OBJECTS, live=JSON_OBJECTS)
def test_merging_twice_changes_nothing_more(before: Any, desired: Any, live: Any) -> None:
    once = merged(desired, live, before)
    assert merged(desired, once, desired) == once


@given(before=JSON_OBJECTS, after=JSON_OBJECTS)
def test_the_difference_leads_from_one_to_the_other(before: Any, after: Any) -> None:
    def patched(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
        result = dict(target)
        for key, value in patch.items():
            if value is None:
                result.pop(key, None)
            elif isinstance(value, dict) and isinstance(target.get(key), dict):
                result[key] = patched(target[key], value)
            else:
                result[key] = value
        return result

    assert patched(before, difference(before, after)) == after
    assert not difference(after, after)

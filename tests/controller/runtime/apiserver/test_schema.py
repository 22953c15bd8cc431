from __future__ import annotations

from typing import Any

import pytest

from controller.runtime.apiserver import schema as structural


def _messages(schema: dict[str, Any], spec: Any) -> list[str]:
    return [str(cause) for cause in structural.validate(schema, {"spec": spec})]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "spec.size: Required value"),
        (
            {"size": "3"},
            'spec.size: Invalid value: "string": spec.size in body must be of type integer: "string"',
        ),
        (
            {"size": True},
            'spec.size: Invalid value: "boolean": spec.size in body must be of type integer: "boolean"',
        ),
        (
            {"size": None},
            'spec.size: Invalid value: "null": spec.size in body must be of type integer: "null"',
        ),
        ({"size": 0}, "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"),
        ({"size": 10}, "spec.size: Invalid value: 10: spec.size in body should be less than or equal to 9"),
        (
            {"size": 1, "color": "green"},
            'spec.color: Unsupported value: "green": supported values: "red", "blue"',
        ),
        (
            {"size": 1, "replicas": 2**31},
            f"spec.replicas: Invalid value: {2**31}: spec.replicas in body must be of type int32: {2**31}",
        ),
        (
            {"size": 1, "port": []},
            'spec.port: Invalid value: "array": spec.port in body must be of type integer,string: "array"',
        ),
        (
            {"size": 1, "parts": [{"name": "A"}]},
            "spec.parts[0].name: Invalid value: \"A\": spec.parts[0].name in body should match '^[a-z]+$'",
        ),
        (
            {"size": 1, "parts": [{"name": "a"}, {"name": "a"}]},
            'spec.parts[1]: Duplicate value: {"name": "a"}',
        ),
        (
            {"size": 1, "tags": {"k": 1}},
            'spec.tags.k: Invalid value: "integer": spec.tags.k in body must be of type string: "integer"',
        ),
    ],
)
def test_a_wrong_value_is_named_in_kube_apiservers_words(
    schema: dict[str, Any],
    spec: Any,
    message: str,
) -> None:
    assert _messages(schema, spec) == [message]


@pytest.mark.parametrize(
    "spec", [{"size": 1}, {"size": 1.0}, {"size": 9, "port": "http"}, {"size": 1, "port": 8}]
)
def test_right_values_pass(schema: dict[str, Any], spec: Any) -> None:
    assert not _messages(schema, spec)


def test_pruning_removes_what_the_schema_does_not_know_and_says_where(schema: dict[str, Any]) -> None:
    obj = {
        "apiVersion": "v1",
        "metadata": {"name": "x"},
        "spec": {"sise": 1, "parts": [{"name": "a", "extra": 1}], "free": {"any": 1}, "tags": {"k": "v"}},
    }
    assert structural.prune(schema, obj) == ["spec.sise", "spec.parts[0].extra"]
    assert obj["spec"] == {"parts": [{"name": "a"}], "free": {"any": 1}, "tags": {"k": "v"}}
    assert obj["metadata"] == {"name": "x"}


def test_defaults_fill_absent_and_null_fields_also_in_lists(schema: dict[str, Any]) -> None:
    obj: dict[str, Any] = {"spec": {"color": None, "parts": [{"name": "a"}, {"name": "b", "weight": 2}]}}
    structural.default(schema, obj)
    assert obj["spec"]["color"] == "red"
    assert [part["weight"] for part in obj["spec"]["parts"]] == [1, 2]
    assert obj["status"] == {"phase": "New"}


def test_combined_schemas() -> None:
    schema = {
        "properties": {
            "a": {"oneOf": [{"required": ["x"]}, {"required": ["y"]}]},
            "b": {"not": {"enum": ["no"]}},
            "c": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            "d": {"allOf": [{"minLength": 2}]},
        },
    }
    good = {"a": {"x": 1}, "b": "yes", "c": 1, "d": "ab"}
    assert not list(structural.validate(schema, good))
    bad = {"a": {"x": 1, "y": 1}, "b": "no", "c": [], "d": "a"}
    assert [cause.field for cause in structural.validate(schema, bad)] == ["a", "b", "c", "d"]


def test_limits_of_size() -> None:
    schema = {"properties": {"l": {"maxItems": 1}, "m": {"maxProperties": 1}, "s": {"maxLength": 1}}}
    value = {"l": [1, 2], "m": {"a": 1, "b": 2}, "s": "ab"}
    assert [cause.message.split(":")[0] for cause in structural.validate(schema, value)] == [
        "Too many",
        "Too many",
        "Too long",
    ]

"""The model key is read strictly, and written as the readers of the original expect it."""

import json

import pytest

from adapters.errors import InvalidModelKeyError
from adapters.puller import ModelKey

FULL = json.dumps(
    {
        "storage_key": "localMinIO",
        "storage_params": {"bucket": "b"},
        "bucket": "old",
        "model_type": {"name": "tensorflow"},
        "schema_path": "schemas/s.json",
        "team": {"cost": 1},
    }
)


def test_a_key_is_read_whole() -> None:
    key = ModelKey.parse(FULL)
    assert (key.storage_key, key.storage_params, key.bucket) == ("localMinIO", {"bucket": "b"}, "old")
    assert (key.schema_path, key.disk_size_bytes, key.extra) == (
        "schemas/s.json",
        None,
        {"team": {"cost": 1}},
    )


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ("", '{"model_type":{"name":"tensorflow"},"disk_size_bytes":60,"team":{"cost":1}}'),
        (
            "/s.json",
            '{"model_type":{"name":"tensorflow"},"disk_size_bytes":60,"schema_path":"/s.json","team":{"cost":1}}',
        ),
    ],
)
def test_after_the_pull_storage_fields_are_gone_and_unknown_ones_stay(schema: str, text: str) -> None:
    assert ModelKey.parse(FULL).pulled(disk_size_bytes=60, schema_path=schema).to_json() == text


def test_a_size_of_zero_is_written() -> None:
    assert ModelKey.parse("{}").pulled(disk_size_bytes=0, schema_path="").to_json() == '{"disk_size_bytes":0}'


def test_a_key_survives_being_read_and_written() -> None:
    assert json.loads(ModelKey.parse(FULL).to_json()) == json.loads(FULL)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "nonsense",
        "[]",
        "{} trailing",
        '{"storage_params": {"a": 1}}',
        '{"storage_key": 5}',
        '{"disk_size_bytes": "many"}',
        '{"schema_path": {}}',
    ],
)
def test_a_malformed_key_is_refused(raw: str) -> None:
    with pytest.raises(InvalidModelKeyError, match="Invalid modelKey"):
        ModelKey.parse(raw)


@pytest.mark.parametrize(
    ("raw", "label", "name"),
    [
        ('{"model_type": {"name": "SKLearn", "version": "0"}}', "mt:other", "sklearn"),
        ('{"model_type": "xgboost:1"}', "", "xgboost"),
        ("{}", "mt:sklearn:0", "sklearn"),
        ("{}", "mt:sklearn|pv:v2", "sklearn"),
        ("{}", "lightgbm", "lightgbm"),
        ('{"model_type": {"version": "1"}}', "mt:onnx", "onnx"),
        ("{}", "rt:my-runtime", ""),
    ],
)
def test_the_type_comes_from_the_key_else_from_the_label(raw: str, label: str, name: str) -> None:
    assert ModelKey.parse(raw).type_name(label) == name

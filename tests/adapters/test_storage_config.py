"""Storage settings: entries of the Secret, defaults, parameters, and what parameters must not do."""

import json
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import StorageConfigError
from adapters.puller import ModelKey
from adapters.puller.storage_config import StorageConfig, override, resolve

S3_ENTRY = {"type": "s3", "endpoint_url": "http://minio:9000", "bucket": "b", "secret_access_key": "s"}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "localMinIO").write_text(json.dumps(S3_ENTRY))
    (tmp_path / "legacy").write_text(json.dumps({"type": "s3", "default_bucket": "old"}))
    (tmp_path / "nested").write_text(json.dumps({"type": "http", "headers": {"A": "1"}, "list": ["x"]}))
    (tmp_path / "broken").write_text("{secret")
    (tmp_path / "untyped").write_text("{}")
    (tmp_path / "..data").mkdir()
    return tmp_path


def settings(secret: Path, **key: Any) -> StorageConfig:
    return resolve(secret, ModelKey.parse(json.dumps(key)))


def test_an_entry_is_used_as_it_is(secret: Path) -> None:
    config = settings(secret, storage_key="localMinIO")
    assert config.values == S3_ENTRY
    assert config.describe() == 'storage key "localMinIO"'


def test_the_secret_is_read_at_each_load(secret: Path) -> None:
    settings(secret, storage_key="localMinIO")
    (secret / "localMinIO").write_text(json.dumps(S3_ENTRY | {"bucket": "new"}))
    assert settings(secret, storage_key="localMinIO").text("bucket") == "new"


def test_an_unknown_key_names_itself_and_those_that_exist(secret: Path) -> None:
    with pytest.raises(StorageConfigError, match=r'"nope".*broken, legacy, localMinIO, nested, untyped$'):
        settings(secret, storage_key="nope")
    with pytest.raises(StorageConfigError, match="it has: none"):
        settings(secret / "absent", storage_key="nope")
    with pytest.raises(StorageConfigError, match=r"\.\./etc"):
        settings(secret, storage_key="../etc")


def test_a_broken_entry_is_named_without_its_content(secret: Path) -> None:
    with pytest.raises(StorageConfigError, match='"broken"') as raised:
        settings(secret, storage_key="broken")
    assert "secret" not in str(raised.value).replace("storage Secret", "")


def test_no_type_is_told_in_the_words_that_clients_know(secret: Path) -> None:
    for key in ({}, {"storage_key": "untyped"}, {"storage_params": {"bucket": "b"}}):
        with pytest.raises(StorageConfigError, match="Predictor Storage field missing"):
            settings(secret, **key)


@pytest.mark.parametrize(
    ("key", "bucket"),
    [
        ({"storage_key": "localMinIO", "bucket": "top"}, "top"),
        ({"storage_key": "localMinIO", "storage_params": {"bucket": "p"}}, "p"),
        ({"storage_key": "localMinIO", "storage_params": {"bucket": "p", "type": "s3"}}, "p"),
        ({"storage_key": "legacy"}, "old"),
        ({"storage_key": "legacy", "storage_params": {"bucket": "p"}}, "p"),
        ({"storage_key": "legacy", "bucket": "top"}, "top"),
        ({"storage_params": {"type": "s3"}, "bucket": "top"}, ""),
        ({"storage_params": {"type": "s3", "bucket": "p", "endpoint_url": "http://x"}}, "p"),
    ],
)
def test_the_bucket_is_the_most_specific_one(secret: Path, key: dict[str, Any], bucket: str) -> None:
    assert settings(secret, **key).text("bucket") == bucket


@pytest.mark.parametrize(
    "params",
    [
        {"endpoint_url": "http://evil"},
        {"secret_access_key": "x"},
        {"type": "gcs"},
        {"certificate": "x"},
        {"session_token": "x"},
        {"bucket": "b/../../other"},
        {"bucket": "evil.example/"},
        {"region": "evil.example/#"},
        {"headers.Host": "x"},
    ],
)
def test_parameters_cannot_send_an_entrys_credentials_elsewhere(secret: Path, params: dict[str, str]) -> None:
    with pytest.raises(StorageConfigError, match=next(iter(params))):
        settings(secret, storage_key="localMinIO", storage_params=params)


def test_a_default_entry_stands_in_for_a_missing_key(secret: Path) -> None:
    (secret / "default").write_text(json.dumps(S3_ENTRY | {"bucket": "default"}))
    (secret / "default_s3").write_text(json.dumps(S3_ENTRY | {"bucket": "default_s3"}))
    assert settings(secret).text("bucket") == "default"
    assert settings(secret, storage_params={"bucket": "p"}).values == S3_ENTRY | {"bucket": "p"}
    assert settings(secret, storage_params={"type": "s3"}).entry == "default_s3"
    assert settings(secret, storage_params={"type": "gcs"}) == StorageConfig({"type": "gcs"})


def test_a_default_entry_never_meets_parameters_that_it_does_not_allow(secret: Path) -> None:
    (secret / "default_s3").write_text(json.dumps(S3_ENTRY))
    params = {"type": "s3", "endpoint_url": "http://public", "bucket": "p"}
    assert settings(secret, storage_params=params) == StorageConfig(params)


def test_dots_address_nested_objects() -> None:
    before = {"a": {"x": "1"}}
    assert override(before, {"b.c.d": "2", "a.y": "3", "a.x": "4"}) == {
        "a": {"x": "4", "y": "3"},
        "b": {"c": {"d": "2"}},
    }
    assert before == {"a": {"x": "1"}}


@pytest.mark.parametrize("name", ["object", "list.0", "text.below"])
def test_only_texts_in_objects_can_be_set(name: str) -> None:
    with pytest.raises(StorageConfigError, match=name):
        override({"object": {"a": "b"}, "list": ["x"], "text": "y"}, {name: "value"})


WEB = {"type": "http", "url": "https://files.example:8443/base/", "headers": {"Authorization": "Bearer t"}}


@pytest.mark.parametrize(
    "url",
    [
        "https://files.example:8443/base?sig=a%2Fb",
        "https://files.example:8443/base/sub/dir",
        "https://files.example:8443/base/",
    ],
)
def test_a_url_may_go_deeper_and_have_a_query(secret: Path, url: str) -> None:
    (secret / "web").write_text(json.dumps(WEB))
    assert settings(secret, storage_key="web", storage_params={"url": url}).text("url") == url


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/base",
        "https://files.example/base",
        "http://files.example:8443/base",
        "https://files.example:8443@evil.example/base",
        "https://files.example:8443/basement",
        "https://files.example:8443/",
        "https://files.example:8443/base/../other",
        "https://files.example:8443/base/%2e%2e/other",
        "https://files.example:8443/base/..\\other",
        "",
    ],
)
def test_an_entrys_headers_go_to_its_own_urls_only(secret: Path, url: str) -> None:
    (secret / "web").write_text(json.dumps(WEB))
    with pytest.raises(StorageConfigError, match='"url" may not be set so over entry "web"'):
        settings(secret, storage_key="web", storage_params={"url": url})


def test_an_entry_without_a_url_gives_its_headers_to_none(secret: Path) -> None:
    (secret / "web").write_text(json.dumps({"type": "http", "headers": {"Authorization": "Bearer t"}}))
    with pytest.raises(StorageConfigError, match='"url"'):
        settings(secret, storage_key="web", storage_params={"url": "https://evil.example"})

"""The settings of S3: what is refused before anything is sent anywhere."""

import pytest

from adapters.errors import StorageConfigError
from adapters.puller.s3 import open_storage
from adapters.puller.settings import Pod
from adapters.puller.storage_config import StorageConfig


@pytest.mark.parametrize(
    "settings",
    [
        {"bucket": "example.com#"},
        {"bucket": "example.com/b"},
        {"bucket": "b", "region": "example.com/#"},
        {"bucket": "b", "region": "x@example.com:80/?"},
    ],
)
def test_bucket_and_region_cannot_choose_the_host(settings: dict[str, str]) -> None:
    with pytest.raises(StorageConfigError, match="cannot be a part of a host name"):
        open_storage(StorageConfig(settings), Pod())


def test_a_bucket_of_amazon_needs_no_endpoint() -> None:
    open_storage(StorageConfig({"bucket": "my.models-2", "region": "eu-west-1"}), Pod())

"""Pulling from a bucket in memory: what a path may be."""

import pytest
from obstore.store import MemoryStore

from adapters.errors import StorageConfigError
from adapters.puller.object_storage import ObjectStorage
from adapters.puller.settings import Pod
from adapters.puller.storage_config import StorageConfig
from adapters.puller.targets import Target


@pytest.mark.parametrize("path", ["a//b", "a/../b", "..", "./a", "a\0b", "a//b/"])
async def test_a_path_that_no_object_can_have_is_the_users_to_correct(path: str) -> None:
    storage = ObjectStorage(MemoryStore(), "s3://bucket", StorageConfig({}), Pod(), digests=False)
    with pytest.raises(StorageConfigError, match="no path of an object"):
        await storage.find([Target(path, "model")])

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from api.core import CONFIG_MAP, ConfigMap
from controller.runtime.errors import Conflict, NotFound
from controller.runtime.finalizers import add_finalizer, remove_finalizer
from controller.runtime.retry import TRIES, change

if TYPE_CHECKING:
    from controller.runtime.apiserver import MemoryClient

JSON = dict[str, Any]
MINE = "example.com/mine"


@pytest.fixture
async def config(client: MemoryClient) -> ConfigMap:
    return ConfigMap.parse(
        await client.create(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "ns"}, "data": {"n": "0"}})
    )


async def _no_sleep(_seconds: float) -> None:
    return


async def test_a_finalizer_is_put_on_once_and_taken_off(client: MemoryClient, config: ConfigMap) -> None:
    assert await add_finalizer(client, CONFIG_MAP, config, MINE)
    assert not await add_finalizer(client, CONFIG_MAP, config, MINE)  # by a cache that lags behind
    await client.delete(CONFIG_MAP, "a", "ns")
    held = ConfigMap.parse(await client.get(CONFIG_MAP, "a", "ns"))
    assert held.metadata.deletion_timestamp
    assert not await add_finalizer(client, CONFIG_MAP, held, "example.com/other")
    assert await remove_finalizer(client, CONFIG_MAP, held, MINE)
    with pytest.raises(NotFound):
        await client.get(CONFIG_MAP, "a", "ns")
    assert not await remove_finalizer(client, CONFIG_MAP, held, MINE)


async def test_finalizers_of_others_and_of_a_namesake_stay(client: MemoryClient, config: ConfigMap) -> None:
    patch = {"metadata": {"finalizers": [MINE, "example.com/other"]}}
    await client.patch(CONFIG_MAP, "a", "ns", patch)
    older = config.model_copy(deep=True)
    older.metadata.uid = "of an object that is gone"
    assert not await remove_finalizer(client, CONFIG_MAP, older, MINE)
    assert await remove_finalizer(client, CONFIG_MAP, config, MINE)
    assert (await client.get(CONFIG_MAP, "a", "ns"))["metadata"]["finalizers"] == ["example.com/other"]


@pytest.mark.usefixtures("config")
async def test_a_change_is_tried_again_on_the_newer_object(client: MemoryClient) -> None:
    others = iter(range(TRIES - 1))

    def count(obj: JSON) -> bool:
        obj["data"]["mine"] = "1"
        return True

    original = client.replace

    async def replace(resource: Any, obj: JSON, *, subresource: str = "") -> JSON:
        if next(others, None) is not None:
            await client.patch(CONFIG_MAP, "a", "ns", {"data": {"n": obj["data"]["n"] + "x"}})
        return await original(resource, obj, subresource=subresource)

    client.replace = replace  # type: ignore[method-assign]
    made = await change(client, CONFIG_MAP, "a", "ns", count, sleep=_no_sleep)
    assert made["data"] == {"n": "0xxxx", "mine": "1"}


@pytest.mark.usefixtures("config")
async def test_a_writer_that_always_loses_says_so(client: MemoryClient) -> None:
    tries = 0

    async def replace(_resource: Any, _obj: JSON, **_options: str) -> JSON:
        nonlocal tries
        tries += 1
        raise Conflict.of(CONFIG_MAP, "a", "somebody was first")

    client.replace = replace  # type: ignore[method-assign,assignment]
    with pytest.raises(Conflict):
        await change(client, CONFIG_MAP, "a", "ns", lambda _: True, sleep=_no_sleep)
    assert tries == TRIES


@pytest.mark.usefixtures("config")
async def test_what_is_right_is_not_written(client: MemoryClient) -> None:
    before = await client.get(CONFIG_MAP, "a", "ns")
    assert await change(client, CONFIG_MAP, "a", "ns", lambda _: False) == before

"""The typed copy: parsing, handlers, indexes, synced, several namespaces."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from api.core import CONFIG_MAP, NAMESPACE, ConfigMap, Namespace
from controller.runtime import Cache, Informer, Scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from controller.runtime.apiserver import MemoryClient

News = list[tuple[str | None, str | None]]


def raw(name: str, version: str = "1", namespace: str = "ns", **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace, "resourceVersion": version}, **more}


@pytest.fixture
def informer(client: MemoryClient) -> Informer[ConfigMap]:
    return Informer(client, ConfigMap)


def news_of(informer: Informer[ConfigMap]) -> News:
    """Collect resource versions before and after every change."""
    seen: News = []

    def handler(old: ConfigMap | None, new: ConfigMap | None) -> None:
        seen.append((old and old.metadata.resource_version, new and new.metadata.resource_version))

    informer.add_handler(handler)
    return seen


@asynccontextmanager
async def running(cache: Cache) -> AsyncIterator[None]:
    task = asyncio.create_task(cache.run())
    async with asyncio.timeout(10):
        await asyncio.sleep(0)
        await cache.wait_synced()
    yield
    task.cancel()
    await asyncio.wait([task])


def test_handlers_see_the_object_before_and_after(informer: Informer[ConfigMap]) -> None:
    news = news_of(informer)
    informer.upsert(raw("a", "1"))
    informer.upsert(raw("a", "2"))
    informer.delete("ns", "a")
    assert news == [(None, "1"), ("1", "2"), ("2", None)]


def test_a_version_seen_before_is_no_news(informer: Informer[ConfigMap]) -> None:
    informer.upsert(raw("a", "1"))
    news = news_of(informer)
    informer.upsert(raw("a", "1"))
    informer.delete("ns", "unknown")
    assert news == [(None, "1")]


def test_a_late_handler_learns_what_is_there(informer: Informer[ConfigMap]) -> None:
    informer.upsert(raw("a", "1"))
    assert news_of(informer) == [(None, "1")]


def test_an_unreadable_object_is_reported_and_stops_no_other(client: MemoryClient) -> None:
    reported: list[str] = []
    informer = Informer(
        client, ConfigMap, on_unparsable=lambda raw, _error: reported.append(raw["metadata"]["name"])
    )
    informer.upsert(raw("bad", data="not a mapping"))
    informer.upsert(raw("good"))
    assert reported == ["bad"]
    assert [obj.name for obj in informer.list()] == ["good"]
    assert "data" in informer.unparsable["ns", "bad"]


def test_the_last_readable_version_stays_until_a_newer_one_or_the_deletion(
    informer: Informer[ConfigMap],
) -> None:
    informer.upsert(raw("a", "1", data={"x": "1"}))
    news = news_of(informer)
    informer.upsert(raw("a", "2", data="broken"))
    held = informer.get("a", "ns")
    assert held is not None
    assert held.metadata.resource_version == "1"
    assert ("ns", "a") in informer.unparsable
    informer.upsert(raw("a", "3", data={"x": "3"}))
    assert not informer.unparsable
    informer.delete("ns", "a")
    assert news == [(None, "1"), ("1", "3"), ("3", None)]


def test_managed_fields_are_not_kept_and_the_source_is_not_changed(informer: Informer[ConfigMap]) -> None:
    source = raw("a")
    source["metadata"]["managedFields"] = [{"manager": "m"}]
    informer.upsert(source)
    held = informer.get("a", "ns")
    assert held is not None
    assert held.metadata.managed_fields is None
    assert source["metadata"]["managedFields"]


def test_an_index_follows_its_objects(informer: Informer[ConfigMap]) -> None:
    def words(obj: ConfigMap) -> Iterable[str]:
        return (obj.data or {}).values()

    informer.upsert(raw("a", data={"k": "red"}))
    informer.add_index("word", words)
    informer.upsert(raw("b", data={"k": "red"}))
    assert [obj.name for obj in informer.by_index("word", "red")] == ["a", "b"]
    informer.upsert(raw("a", "2", data={"k": "blue"}))
    assert [obj.name for obj in informer.by_index("word", "red")] == ["b"]
    informer.delete("ns", "b")
    assert informer.by_index("word", "red") == []
    assert [obj.name for obj in informer.by_index("word", "blue")] == ["a"]
    with pytest.raises(KeyError):
        informer.by_index("unknown", "x")


async def test_a_cache_mirrors_the_server(client: MemoryClient, eventually: Any) -> None:
    await client.create(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "ns"}})
    cache = Cache(client)
    lister = cache.lister(ConfigMap)
    assert not cache.has_synced
    async with running(cache):
        assert lister.get("a", "ns") is not None
        assert cache.has_synced
        await client.create(CONFIG_MAP, {"metadata": {"name": "b", "namespace": "other"}})
        await eventually(lambda: lister.get("b", "other"))
        assert [obj.name for obj in lister.list("ns")] == ["a"]
        assert len(lister.list()) == 2
        await client.delete(CONFIG_MAP, "a", "ns")
        await eventually(lambda: lister.get("a", "ns") is None)


async def test_a_cache_of_some_namespaces_sees_only_those(client: MemoryClient) -> None:
    for namespace in ("ns", "other", "default"):
        await client.create(CONFIG_MAP, {"metadata": {"name": "a", "namespace": namespace}})
    cache = Cache(client, namespaces=["ns", "other"])
    lister, namespaces = cache.lister(ConfigMap), cache.lister(Namespace)
    async with running(cache):
        assert sorted(obj.namespace for obj in lister.list()) == ["ns", "other"]
        assert namespaces.get("default") is not None
        assert len(namespaces.list("")) == len((await client.list(NAMESPACE)).items)


async def test_a_scope_narrows_and_shares_its_copy(client: MemoryClient) -> None:
    for name in ("a", "b"):
        await client.create(CONFIG_MAP, {"metadata": {"name": name, "namespace": "ns"}})
    cache = Cache(client)
    scope = Scope(namespaces=("ns",), field_selector="metadata.name=b")
    lister = cache.lister(ConfigMap, scope)
    assert cache.lister(ConfigMap, scope) is lister
    assert cache.lister(ConfigMap) is not lister
    async with running(cache):
        assert [obj.name for obj in lister.list()] == ["b"]


async def test_an_informer_asked_for_late_starts_at_once(client: MemoryClient) -> None:
    await client.create(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "ns"}})
    cache = Cache(client)
    async with running(cache):
        lister = cache.lister(ConfigMap)
        async with asyncio.timeout(10):
            await cache.wait_synced()
        assert lister.get("a", "ns") is not None

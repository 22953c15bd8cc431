"""`ensure` against the API server in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from api.core import CONFIG_MAP, SERVICE
from controller.runtime import ensure
from controller.runtime.apply import FIELDS_ANNOTATION
from controller.runtime.errors import Conflict, Invalid

if TYPE_CHECKING:
    from api.resource import Resource
    from controller.runtime.apiserver import MemoryClient


def config_map(**data: str) -> dict[str, Any]:
    return {"metadata": {"name": "c", "namespace": "ns", "labels": {"app": "a"}}, "data": data}


async def read(client: MemoryClient) -> dict[str, Any]:
    return await client.get(CONFIG_MAP, "c", "ns")


async def test_creates_what_is_not_there(client: MemoryClient) -> None:
    made = await ensure(client, CONFIG_MAP, config_map(a="1"))
    assert made.action == "created"
    assert (await read(client))["data"] == {"a": "1"}


async def test_writes_nothing_when_nothing_differs(client: MemoryClient) -> None:
    first = await ensure(client, CONFIG_MAP, config_map(a="1"))
    again = await ensure(client, CONFIG_MAP, config_map(a="1"), live=first.object)
    assert again.action == "unchanged"
    assert (await read(client))["metadata"]["resourceVersion"] == first.object["metadata"]["resourceVersion"]


async def test_brings_back_ours_keeps_theirs_and_removes_what_we_dropped(client: MemoryClient) -> None:
    await ensure(client, CONFIG_MAP, config_map(a="1", b="2"))
    patch = {"data": {"a": "changed", "theirs": "3"}, "metadata": {"labels": {"theirs": "x"}}}
    await client.patch(CONFIG_MAP, "c", "ns", patch)
    assert (await ensure(client, CONFIG_MAP, config_map(a="1"))).action == "updated"
    live = await read(client)
    assert live["data"] == {"a": "1", "theirs": "3"}
    assert live["metadata"]["labels"] == {"app": "a", "theirs": "x"}


async def test_defaults_of_the_server_are_not_fought_over(client: MemoryClient) -> None:
    service = {
        "metadata": {"name": "s", "namespace": "ns"},
        "spec": {"selector": {"app": "a"}, "ports": [{"name": "grpc", "port": 8033}], "clusterIP": "None"},
    }
    await ensure(client, SERVICE, service)
    assert (await ensure(client, SERVICE, service)).action == "unchanged"


async def test_a_stale_copy_is_a_conflict(client: MemoryClient) -> None:
    stale = (await ensure(client, CONFIG_MAP, config_map(a="1"))).object
    await client.patch(CONFIG_MAP, "c", "ns", {"data": {"theirs": "3"}})
    with pytest.raises(Conflict):
        await ensure(client, CONFIG_MAP, config_map(a="2"), live=stale)


async def test_an_object_made_by_others_is_adopted(client: MemoryClient) -> None:
    await client.create(CONFIG_MAP, {"metadata": {"name": "c", "namespace": "ns"}, "data": {"x": "1"}})
    assert (await ensure(client, CONFIG_MAP, config_map(a="1"))).action == "updated"
    assert (await read(client))["data"] == {"x": "1", "a": "1"}


async def test_what_appears_between_looking_and_creating_is_merged(client: MemoryClient) -> None:
    class Late:
        """Hides the object from the first read."""

        def __init__(self) -> None:
            self.hidden = True

        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

        async def get(self, resource: Resource, name: str, namespace: str = "") -> dict[str, Any]:
            if self.hidden:
                self.hidden = False
                await client.create(CONFIG_MAP, config_map(theirs="1"))
                return await client.get(resource, "nobody", namespace)
            return await client.get(resource, name, namespace)

    assert (await ensure(Late(), CONFIG_MAP, config_map(a="1"))).action == "updated"
    assert (await read(client))["data"] == {"theirs": "1", "a": "1"}


async def test_a_damaged_note_is_as_none(client: MemoryClient) -> None:
    await ensure(client, CONFIG_MAP, config_map(a="1", b="2"))
    await client.patch(CONFIG_MAP, "c", "ns", {"metadata": {"annotations": {FIELDS_ANNOTATION: "{oops"}}})
    await ensure(client, CONFIG_MAP, config_map(a="1"))
    assert (await read(client))["data"] == {"a": "1", "b": "2"}
    assert (await ensure(client, CONFIG_MAP, config_map(a="1"))).action == "unchanged"


async def test_the_note_holds_no_values(client: MemoryClient) -> None:
    made = await ensure(client, CONFIG_MAP, config_map(password="hunter2"))
    assert "hunter2" not in made.object["metadata"]["annotations"][FIELDS_ANNOTATION]


async def test_what_the_server_refuses_is_raised(client: MemoryClient) -> None:
    with pytest.raises(Invalid):
        await ensure(client, CONFIG_MAP, {"metadata": {"name": "NOT VALID", "namespace": "ns"}})

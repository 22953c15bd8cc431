"""Lists and watches: what a reflector builds on."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from api.core import CONFIG_MAP, EVENT, SECRET
from controller.runtime.errors import BadRequest, Gone

if TYPE_CHECKING:
    from api.resource import Resource
    from controller.runtime import Client

DEADLINE_S = 30.0


async def _names(client: Client, namespace: str, **query: Any) -> list[str]:
    return [item["metadata"]["name"] for item in (await client.list(CONFIG_MAP, namespace, **query)).items]


@pytest.fixture
async def five(client: Client, config: Any) -> list[str]:
    names = [f"c{number}" for number in range(5)]
    for number, name in enumerate(names):
        labels = {"number": str(number)} | ({"odd": ""} if number % 2 else {})
        await client.create(CONFIG_MAP, config(name, labels=labels))
    return names


@pytest.mark.usefixtures("five")
@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("odd", ["c1", "c3"]),
        ("!odd", ["c0", "c2", "c4"]),
        ("number=1", ["c1"]),
        ("number!=1,odd", ["c3"]),
        ("number in (0,2)", ["c0", "c2"]),
        ("number notin (0,2),!odd", ["c4"]),
        ("number>3", ["c4"]),
        ("none", []),
    ],
)
async def test_labels_select(client: Client, namespace: str, labels: str, expected: list[str]) -> None:
    assert await _names(client, namespace, label_selector=labels) == expected


@pytest.mark.usefixtures("five")
async def test_fields_select(client: Client, namespace: str) -> None:
    assert await _names(client, namespace, field_selector="metadata.name=c1") == ["c1"]
    assert await _names(client, namespace, field_selector="metadata.name!=c1,metadata.name!=c2") == [
        "c0",
        "c3",
        "c4",
    ]
    assert await _names(client, "", field_selector=f"metadata.namespace={namespace},metadata.name=c1") == [
        "c1"
    ]


async def test_events_are_found_by_their_object(client: Client, namespace: str) -> None:
    for name in ("a", "b"):
        about = {"kind": "ConfigMap", "name": name, "namespace": namespace}
        body = {
            "metadata": {"name": f"e-{name}", "namespace": namespace},
            "involvedObject": about,
            "reason": "R",
        }
        await client.create(EVENT, body)
    selector = "involvedObject.kind=ConfigMap,involvedObject.name=b,reason=R"
    found = await client.list(EVENT, namespace, field_selector=selector)
    assert [item["metadata"]["name"] for item in found.items] == ["e-b"]


async def test_selectors_that_cannot_be_read_are_refused(client: Client, namespace: str) -> None:
    with pytest.raises(BadRequest, match="unable to parse"):
        await client.list(CONFIG_MAP, namespace, label_selector="a in b")
    with pytest.raises(BadRequest, match=r"field (selector|label)"):
        await client.list(CONFIG_MAP, namespace, field_selector="data.k=v")


async def test_a_list_comes_in_pages_of_one_version(client: Client, five: list[str], config: Any) -> None:
    namespace = config("x")["metadata"]["namespace"]
    first = await client.list(CONFIG_MAP, namespace, limit=2)
    assert {(item["apiVersion"], item["kind"]) for item in first.items} == {("v1", "ConfigMap")}
    pages, page = [first], first
    while page.continue_token:
        page = await client.list(CONFIG_MAP, namespace, limit=2, continue_token=page.continue_token)
        pages.append(page)
    assert [len(page.items) for page in pages] == [2, 2, 1]
    assert [item["metadata"]["name"] for page in pages for item in page.items] == five
    assert len({page.resource_version for page in pages}) == 1


@pytest.mark.usefixtures("five")
async def test_a_continue_token_expires_with_the_history(
    client: Client, namespace: str, config: Any, backend: Any
) -> None:
    page = await client.list(CONFIG_MAP, namespace, limit=2)
    await client.create(CONFIG_MAP, config("c9"))
    await backend.forget()
    with pytest.raises(Gone, match="continue parameter is too old"):
        await client.list(CONFIG_MAP, namespace, limit=2, continue_token=page.continue_token)


async def test_a_watch_goes_on_where_the_list_ended(client: Client, config: Any, namespace: str) -> None:
    await client.create(CONFIG_MAP, config("before"))
    version = (await client.list(CONFIG_MAP, namespace)).resource_version
    made = await client.create(CONFIG_MAP, config("a"))
    changed = await client.patch(CONFIG_MAP, "a", namespace, {"data": {"k": "2"}})
    await client.create(SECRET, {"metadata": {"name": "s", "namespace": namespace}})
    await client.delete(CONFIG_MAP, "a", namespace)
    async with (
        asyncio.timeout(DEADLINE_S),
        aclosing(client.watch(CONFIG_MAP, namespace, resource_version=version)) as watch,
    ):
        events = [await anext(watch) for _ in range(3)]
    assert [event.type for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert [event.object for event in events[:2]] == [made, changed]
    last = events[2].object
    assert last["data"] == {"k": "2"}
    assert int(last["metadata"]["resourceVersion"]) > int(changed["metadata"]["resourceVersion"])


async def test_a_live_watch_sees_each_change_as_it_happens(
    client: Client, config: Any, namespace: str
) -> None:
    version = (await client.list(CONFIG_MAP, namespace)).resource_version
    watch = client.watch(CONFIG_MAP, namespace, resource_version=version)
    async with asyncio.timeout(DEADLINE_S), aclosing(watch):
        for name in ("a", "b", "c"):
            waiting = asyncio.ensure_future(anext(watch))
            await client.create(CONFIG_MAP, config(name))
            event = await waiting
            assert (event.type, event.object["metadata"]["name"]) == ("ADDED", name)


async def test_objects_enter_and_leave_a_selected_watch(client: Client, config: Any, namespace: str) -> None:
    await client.create(CONFIG_MAP, config("a"))
    version = (await client.list(CONFIG_MAP, namespace)).resource_version
    for labels in ({"in": "yes"}, {"in": "yes", "more": ""}, {"in": "no", "more": ""}):
        await client.patch(CONFIG_MAP, "a", namespace, {"metadata": {"labels": labels}})
    watch = client.watch(CONFIG_MAP, namespace, resource_version=version, label_selector="in=yes")
    async with asyncio.timeout(DEADLINE_S), aclosing(watch):
        assert [(await anext(watch)).type for _ in range(3)] == ["ADDED", "MODIFIED", "DELETED"]


async def test_a_bookmark_tells_of_versions_that_a_selected_watch_does_not_see(
    client: Client, widget_type: Resource, widget: Any, namespace: str
) -> None:
    version = (await client.list(widget_type, namespace)).resource_version
    only_w = {"field_selector": "metadata.name=w", "timeout_seconds": 5}
    async with asyncio.timeout(DEADLINE_S):
        watch = client.watch(widget_type, namespace, resource_version=version, **only_w)  # type: ignore[arg-type]
        waiting = asyncio.ensure_future(anext(watch))
        await client.create(widget_type, widget)
        assert (await waiting).type == "ADDED"
        unseen = widget | {"metadata": widget["metadata"] | {"name": "other"}}
        other = await client.create(widget_type, unseen)
        rest = [event async for event in watch]  # it ends by itself
    assert {event.type for event in rest} == {"BOOKMARK"}
    mark = rest[-1].object
    assert (mark["kind"], mark["apiVersion"]) == (widget_type.kind, widget_type.api_version)
    assert int(mark["metadata"]["resourceVersion"]) >= int(other["metadata"]["resourceVersion"])
    assert "spec" not in mark


async def test_a_watch_from_a_forgotten_version_is_gone(
    client: Client, config: Any, namespace: str, backend: Any
) -> None:
    await client.create(CONFIG_MAP, config("a"))
    await backend.forget()
    with pytest.raises(Gone, match="too old resource version"):
        async with asyncio.timeout(DEADLINE_S):
            await anext(client.watch(CONFIG_MAP, namespace, resource_version=backend.oldest))

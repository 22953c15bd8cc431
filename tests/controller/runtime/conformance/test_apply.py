"""Server-side apply: who owns which field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from api.core import CONFIG_MAP, DEPLOYMENT
from controller.runtime.errors import ApiError, BadRequest, Conflict, NotFound

if TYPE_CHECKING:
    from api.resource import Resource
    from controller.runtime import Client

JSON = dict[str, Any]


def _owners(obj: JSON) -> dict[str, tuple[str, str]]:
    return {
        entry["manager"]: (entry["operation"], entry.get("subresource", ""))
        for entry in obj["metadata"]["managedFields"]
    }


async def test_apply_creates_and_owns(client: Client, config: Any) -> None:
    made = await client.apply(CONFIG_MAP, config("a"), field_manager="one")
    (entry,) = made["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"], entry["apiVersion"]) == ("one", "Apply", "v1")
    assert entry["fieldsV1"] == {"f:data": {"f:k": {}}}
    again = await client.apply(CONFIG_MAP, config("a"), field_manager="one")
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_a_field_of_another_is_a_conflict_unless_forced(client: Client, config: Any) -> None:
    await client.apply(CONFIG_MAP, config("a"), field_manager="one")
    other = config("a", {"k": "other"})
    with pytest.raises(Conflict, match='conflict with "one"') as caught:
        await client.apply(CONFIG_MAP, other, field_manager="two", force=False)
    (cause,) = (caught.value.details or {})["causes"]
    assert (cause["reason"], cause["field"]) == ("FieldManagerConflict", ".data.k")
    forced = await client.apply(CONFIG_MAP, other, field_manager="two")
    assert forced["data"] == {"k": "other"}
    assert _owners(forced) == {"two": ("Apply", "")}


async def test_the_same_value_is_shared(client: Client, config: Any) -> None:
    await client.apply(CONFIG_MAP, config("a"), field_manager="one")
    both = await client.apply(CONFIG_MAP, config("a"), field_manager="two", force=False)
    assert set(_owners(both)) == {"one", "two"}


async def test_what_is_no_longer_applied_goes_and_what_others_own_stays(
    client: Client, config: Any, namespace: str
) -> None:
    await client.apply(CONFIG_MAP, config("a", {"mine": "1", "both": "1"}), field_manager="one")
    await client.apply(CONFIG_MAP, config("a", {"both": "1"}), field_manager="two")
    await client.patch(CONFIG_MAP, "a", namespace, {"data": {"theirs": "1"}})
    after = await client.apply(CONFIG_MAP, config("a", {"new": "1"}), field_manager="one")
    assert after["data"] == {"both": "1", "theirs": "1", "new": "1"}


async def test_an_update_takes_the_fields_it_changes(client: Client, config: Any, namespace: str) -> None:
    await client.apply(CONFIG_MAP, config("a", {"k": "1", "l": "1"}), field_manager="one")
    await client.patch(CONFIG_MAP, "a", namespace, {"data": {"k": "2"}})
    with pytest.raises(Conflict, match=r"\.data\.k"):
        await client.apply(CONFIG_MAP, config("a", {"k": "1"}), field_manager="one", force=False)


def _deployment(namespace: str, *containers: JSON, **spec: Any) -> JSON:
    labels = {"app": "x"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": list(containers)}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": namespace},
        "spec": {"selector": {"matchLabels": labels}, "template": template, **spec},
    }


async def test_entries_of_keyed_lists_have_their_own_owners(client: Client, namespace: str) -> None:
    ours, theirs = {"name": "c", "image": "i:1"}, {"name": "s", "image": "i:2"}
    await client.apply(DEPLOYMENT, _deployment(namespace, ours), field_manager="one")
    both = await client.apply(DEPLOYMENT, _deployment(namespace, theirs), field_manager="two")
    containers = both["spec"]["template"]["spec"]["containers"]
    assert [item["name"] for item in containers] == ["c", "s"]
    alone = await client.apply(
        DEPLOYMENT, _deployment(namespace, {"name": "c", "image": "i:3"}), field_manager="one"
    )
    containers = alone["spec"]["template"]["spec"]["containers"]
    assert [(item["name"], item["image"]) for item in containers] == [("c", "i:3"), ("s", "i:2")]


async def test_keyed_lists_of_custom_resources_too(
    client: Client, widget_type: Resource, widget: JSON
) -> None:
    def parts(*names: str) -> JSON:
        return widget | {"spec": {"size": 3, "parts": [{"name": name} for name in names]}}

    await client.apply(widget_type, parts("a", "b"), field_manager="one")
    await client.apply(widget_type, parts("b", "c"), field_manager="two")
    after = await client.apply(widget_type, parts("a"), field_manager="one")
    assert [part["name"] for part in after["spec"]["parts"]] == ["a", "b", "c"]
    after = await client.apply(widget_type, parts(), field_manager="two")
    assert [part["name"] for part in after["spec"]["parts"]] == ["a"]


async def test_plain_lists_are_owned_whole(client: Client, widget_type: Resource, widget: JSON) -> None:
    one = widget | {"spec": {"size": 3, "list": ["a"]}}
    two = widget | {"spec": {"size": 3, "list": ["b"]}}
    await client.apply(widget_type, one, field_manager="one")
    with pytest.raises(Conflict, match=r"\.spec\.list"):
        await client.apply(widget_type, two, field_manager="two", force=False)
    assert (await client.apply(widget_type, two, field_manager="two"))["spec"]["list"] == ["b"]


async def test_status_is_owned_apart(client: Client, widget_type: Resource, widget: JSON) -> None:
    await client.apply(widget_type, widget, field_manager="one")
    status = {key: widget[key] for key in ("apiVersion", "kind", "metadata")} | {"status": {"phase": "Up"}}
    both = await client.apply(widget_type, status, field_manager="status", subresource="status")
    assert both["status"] == {"phase": "Up"}
    assert _owners(both) == {"one": ("Apply", ""), "status": ("Apply", "status")}
    after = await client.apply(widget_type, widget, field_manager="one")
    assert after["status"] == {"phase": "Up"}


async def test_a_status_is_not_applied_to_what_is_not_there(
    client: Client, widget_type: Resource, widget: JSON
) -> None:
    with pytest.raises(NotFound):
        await client.apply(widget_type, widget, field_manager="one", subresource="status")


async def test_unknown_fields_are_refused(client: Client, namespace: str) -> None:
    body = _deployment(namespace, {"name": "c", "image": "i"}, unheard="of")
    with pytest.raises(ApiError, match="unheard"):
        await client.apply(DEPLOYMENT, body, field_manager="one")


async def test_managed_fields_are_not_applied(client: Client, config: Any) -> None:
    made = await client.apply(CONFIG_MAP, config("a"), field_manager="one")
    with pytest.raises(BadRequest, match=r"metadata\.managedFields must be nil"):
        await client.apply(CONFIG_MAP, made, field_manager="one")

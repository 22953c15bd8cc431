"""Server-side apply: who owns a field, and what happens to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from api.core import CONFIG_MAP, DEPLOYMENT
from controller.runtime.apiserver import Core, MemoryClient, WriteOptions, typed
from controller.runtime.client import PatchKind
from controller.runtime.errors import Conflict

if TYPE_CHECKING:
    from api.resource import Resource

JSON = dict[str, Any]


def _config(**data: str) -> JSON:
    return {"metadata": {"name": "a", "namespace": "ns"}, "data": data}


def _deployment(*containers: JSON, **spec: Any) -> JSON:
    labels = {"app": "x"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": list(containers)}}
    return {
        "metadata": {"name": "d", "namespace": "ns"},
        "spec": {"selector": {"matchLabels": labels}, "template": template, **spec},
    }


def _owners(obj: JSON) -> dict[str, JSON]:
    return {entry["manager"]: entry["fieldsV1"] for entry in obj["metadata"]["managedFields"]}


async def test_apply_creates_and_records_the_fields_of_its_manager(client: MemoryClient) -> None:
    made = await client.apply(CONFIG_MAP, _config(k="v"), field_manager="me")
    (entry,) = made["metadata"]["managedFields"]
    assert entry == {
        "manager": "me",
        "operation": "Apply",
        "apiVersion": "v1",
        "time": "2026-01-01T12:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:k": {}}},
    }


async def test_applying_the_same_again_changes_nothing(client: MemoryClient, clock: Any) -> None:
    obj = _deployment({"name": "c", "image": "1", "ports": [{"containerPort": 80}]})
    made = await client.apply(DEPLOYMENT, obj, field_manager="me")
    clock.advance(minutes=1)
    assert await client.apply(DEPLOYMENT, obj, field_manager="me") == made


async def test_a_field_given_up_is_removed_unless_somebody_else_owns_it(client: MemoryClient) -> None:
    await client.apply(CONFIG_MAP, _config(k="v", mine="1", shared="2"), field_manager="me")
    await client.apply(CONFIG_MAP, _config(shared="2"), field_manager="other")
    made = await client.apply(CONFIG_MAP, _config(k="v"), field_manager="me")
    assert made["data"] == {"k": "v", "shared": "2"}


async def test_fields_of_others_survive(client: MemoryClient) -> None:
    await client.apply(CONFIG_MAP, _config(k="v"), field_manager="me")
    await client.patch(CONFIG_MAP, "a", "ns", {"data": {"theirs": "1"}, "metadata": {"labels": {"a": "b"}}})
    made = await client.apply(CONFIG_MAP, _config(k="w"), field_manager="me")
    assert made["data"] == {"k": "w", "theirs": "1"}
    assert made["metadata"]["labels"] == {"a": "b"}


async def test_a_conflict_names_field_and_manager_and_force_takes_the_field(client: MemoryClient) -> None:
    await client.apply(CONFIG_MAP, _config(k="v"), field_manager="me")
    expected = r'Apply failed with 1 conflict: conflict with "me" using v1: \.data\.k'
    with pytest.raises(Conflict, match=expected) as caught:
        await client.apply(CONFIG_MAP, _config(k="w"), field_manager="other", force=False)
    assert (caught.value.details or {})["causes"][0]["reason"] == "FieldManagerConflict"
    made = await client.apply(CONFIG_MAP, _config(k="w"), field_manager="other")
    assert _owners(made) == {"other": {"f:data": {"f:k": {}}}}


async def test_an_update_takes_the_fields_it_changes(client: MemoryClient) -> None:
    await client.apply(CONFIG_MAP, _config(k="v", l="v"), field_manager="me")
    made = await client.patch(CONFIG_MAP, "a", "ns", {"data": {"k": "2"}})
    assert _owners(made) == {"me": {"f:data": {"f:l": {}}}, "memory-client": {"f:data": {"f:k": {}}}}


async def test_list_entries_are_owned_by_their_key(client: MemoryClient) -> None:
    mine = _deployment({"name": "c", "image": "1", "env": [{"name": "A", "value": "1"}]})
    await client.apply(DEPLOYMENT, mine, field_manager="me")
    sidecar = {"spec": {"template": {"spec": {"containers": [{"name": "s", "image": "2"}]}}}}
    await client.patch(DEPLOYMENT, "d", "ns", sidecar, kind=PatchKind.STRATEGIC)
    mine["spec"]["template"]["spec"]["containers"] = [
        {"name": "b", "image": "3"},
        {"name": "c", "image": "4"},
    ]
    made = await client.apply(DEPLOYMENT, mine, field_manager="me")
    containers = made["spec"]["template"]["spec"]["containers"]
    assert [(item["name"], item["image"]) for item in containers] == [("b", "3"), ("c", "4"), ("s", "2")]
    assert "env" not in containers[1]
    fields = _owners(made)["me"]["f:spec"]["f:template"]["f:spec"]["f:containers"]
    assert fields == {
        'k:{"name":"b"}': {".": {}, "f:image": {}, "f:name": {}},
        'k:{"name":"c"}': {".": {}, "f:image": {}, "f:name": {}},
    }
    mine["spec"]["template"]["spec"]["containers"] = [{"name": "c", "image": "4"}]
    made = await client.apply(DEPLOYMENT, mine, field_manager="me")
    assert [item["name"] for item in made["spec"]["template"]["spec"]["containers"]] == ["c", "s"]


async def test_status_is_owned_apart(client: MemoryClient, widget_resource: Resource, widget: JSON) -> None:
    await client.apply(widget_resource, widget, field_manager="me")
    status = {"metadata": widget["metadata"], "status": {"phase": "Up"}}
    made = await client.apply(widget_resource, status, field_manager="me", subresource="status")
    assert (made["spec"]["size"], made["status"]["phase"]) == (3, "Up")
    entries = {entry.get("subresource", ""): entry["fieldsV1"] for entry in made["metadata"]["managedFields"]}
    assert entries == {"": {"f:spec": {"f:size": {}}}, "status": {"f:status": {"f:phase": {}}}}


async def test_keyed_lists_of_custom_resources_follow_their_schema(
    client: MemoryClient,
    widget_resource: Resource,
    widget: JSON,
) -> None:
    widget["spec"]["parts"] = [{"name": "a"}]
    await client.apply(widget_resource, widget, field_manager="me")
    other = {"metadata": widget["metadata"], "spec": {"size": 3, "parts": [{"name": "b", "weight": 2}]}}
    await client.apply(widget_resource, other, field_manager="other")
    del widget["spec"]["parts"]
    made = await client.apply(widget_resource, widget, field_manager="me")
    assert made["spec"]["parts"] == [{"name": "b", "weight": 2}]


def test_dry_run_shows_the_result_and_stores_nothing(core: Core) -> None:
    kind = core.kind(CONFIG_MAP)
    core.apply(kind, _config(k="v"), force=True, options=WriteOptions(field_manager="me"))
    options = WriteOptions(field_manager="me", dry_run=True)
    shown = core.apply(kind, _config(k="w"), force=True, options=options)
    assert shown.object["data"] == {"k": "w"}
    assert core.get(kind, "a", "ns").object["data"] == {"k": "v"}


def test_sets_of_fields_survive_the_wire_format() -> None:
    paths = {("f:a",), ("f:l", 'k:{"n":1}'), ("f:l", 'k:{"n":1}', "f:x"), ("f:s", 'v:"z"')}
    assert typed.from_fields(typed.to_fields(paths)) == paths
    assert typed.shown(("f:l", 'k:{"n":1}', "f:x")) == ".l[n=1].x"

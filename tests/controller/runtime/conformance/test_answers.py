"""What the two servers answer on the wire: tables, warnings about fields, dry runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controller.runtime.errors import NotFound

if TYPE_CHECKING:
    from api.resource import Resource
    from controller.runtime import Client

JSON = dict[str, Any]
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}


async def test_a_table_has_the_columns_of_the_definition(
    client: Client, backend: Any, widget_type: Resource, widget: JSON, namespace: str
) -> None:
    await client.create(widget_type, widget)
    await client.patch(widget_type, "w", namespace, {"status": {"phase": "Up"}}, subresource="status")
    answer = await backend.raw("GET", "widgets", headers=TABLE)
    assert (answer.status, answer.body["kind"], answer.body["apiVersion"]) == (200, "Table", "meta.k8s.io/v1")
    columns = answer.body["columnDefinitions"]
    assert [(column["name"], column["type"], column["priority"]) for column in columns] == [
        ("Name", "string", 0),
        ("Size", "integer", 0),
        ("Phase", "string", 0),
        ("Off", "boolean", 1),
    ]
    (row,) = answer.body["rows"]
    assert row["cells"] == ["w", 3, "Up", None]
    assert row["object"]["kind"] == "PartialObjectMetadata"


async def test_unknown_fields_are_warned_of_or_refused_as_asked(backend: Any, widget: JSON) -> None:
    widget["spec"]["unheard"] = "of"
    strict = await backend.raw("POST", "widgets?fieldValidation=Strict", widget)
    assert strict.status == 400
    assert 'unknown field "spec.unheard"' in strict.body["message"]
    warned = await backend.raw("POST", "widgets", widget)
    assert (warned.status, warned.warnings) == (201, ['unknown field "spec.unheard"'])
    assert "unheard" not in warned.body["spec"]


async def test_a_dry_run_shows_the_result_and_stores_nothing(
    client: Client, backend: Any, widget_type: Resource, widget: JSON, namespace: str
) -> None:
    answer = await backend.raw("POST", "widgets?dryRun=All", widget)
    assert (answer.status, answer.body["spec"]) == (201, {"size": 3, "color": "red"})
    try:
        await client.get(widget_type, "w", namespace)
    except NotFound:
        return
    raise AssertionError("the object is there")


async def test_a_collection_is_deleted_by_selector(
    client: Client, backend: Any, widget_type: Resource, widget: JSON, namespace: str
) -> None:
    for name, labels in (("a", {"go": ""}), ("b", {"go": ""}), ("c", {})):
        metadata = {"name": name, "namespace": namespace, "labels": labels}
        await client.create(widget_type, widget | {"metadata": metadata})
    assert (await backend.raw("DELETE", "widgets?labelSelector=go")).status == 200
    left = (await client.list(widget_type, namespace)).items
    assert [item["metadata"]["name"] for item in left] == ["c"]


async def test_errors_are_status_objects(backend: Any) -> None:
    answer = await backend.raw("GET", "widgets/none")
    assert answer.status == 404
    assert {key: answer.body[key] for key in ("kind", "apiVersion", "status", "reason", "code")} == {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": "NotFound",
        "code": 404,
    }
    details = {"name": "none", "group": "conformance.example.com", "kind": "widgets"}
    assert answer.body["details"] == details

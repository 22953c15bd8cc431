"""Single objects: create, read, write, delete, and what the server does to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from api.core import CONFIG_MAP, DEPLOYMENT, SECRET
from api.resource import Resource
from controller.runtime.client import PatchKind
from controller.runtime.errors import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
)

if TYPE_CHECKING:
    from controller.runtime import Client

JSON = dict[str, Any]


async def test_an_object_gets_its_identity_from_the_server(
    client: Client, config: Any, namespace: str
) -> None:
    made = await client.create(CONFIG_MAP, config("a", uid="mine", creationTimestamp="2000-01-01T00:00:00Z"))
    assert made["metadata"]["uid"] not in {"", "mine"}
    assert made["metadata"]["creationTimestamp"] > "2020"
    assert int(made["metadata"]["resourceVersion"]) > 0
    assert (made["apiVersion"], made["kind"]) == ("v1", "ConfigMap")
    assert await client.get(CONFIG_MAP, "a", namespace) == made


async def test_a_client_knows_the_type_of_what_it_writes(
    client: Client, widget_type: Resource, widget: JSON
) -> None:
    bare = {key: value for key, value in widget.items() if key not in {"apiVersion", "kind"}}
    made = await client.create(widget_type, bare)
    assert (made["apiVersion"], made["kind"]) == (widget_type.api_version, widget_type.kind)
    del made["kind"]
    assert (await client.replace(widget_type, made))["kind"] == widget_type.kind
    applied = await client.apply(widget_type, bare, field_manager="one")
    assert applied["kind"] == widget_type.kind


async def test_a_name_is_made_from_its_prefix(client: Client, namespace: str) -> None:
    body = {"metadata": {"generateName": "job-", "namespace": namespace}}
    names = [(await client.create(CONFIG_MAP, body))["metadata"]["name"] for _ in range(2)]
    assert len(set(names)) == 2
    assert all(name.startswith("job-") and len(name) == 9 for name in names)


async def test_what_is_not_there_is_not_found(client: Client, namespace: str, config: Any) -> None:
    with pytest.raises(NotFound, match='configmaps "a" not found') as caught:
        await client.get(CONFIG_MAP, "a", namespace)
    assert caught.value.details == {"name": "a", "kind": "configmaps"}
    with pytest.raises(NotFound):
        await client.patch(CONFIG_MAP, "a", namespace, {"data": {}})
    with pytest.raises(NotFound):
        await client.delete(CONFIG_MAP, "a", namespace)
    with pytest.raises(NotFound):
        await client.list(Resource("nothing.example.com", "v1", "Nothing", "nothings"))
    with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
        await client.create(CONFIG_MAP, config("a", namespace="nowhere"))


async def test_a_name_is_taken_once(client: Client, config: Any) -> None:
    await client.create(CONFIG_MAP, config("a"))
    with pytest.raises(AlreadyExists, match='configmaps "a" already exists') as caught:
        await client.create(CONFIG_MAP, config("a"))
    assert caught.value.details == {"name": "a", "kind": "configmaps"}


@pytest.mark.parametrize("name", ["", "Upper", "a_b", "-a", "a" * 254])
async def test_bad_names_are_refused(client: Client, config: Any, name: str) -> None:
    with pytest.raises(Invalid) as caught:
        await client.create(CONFIG_MAP, config(name))
    assert "metadata.name" in {cause["field"] for cause in (caught.value.details or {})["causes"]}


@pytest.mark.parametrize("labels", [{"a b": "c"}, {"a": "b c"}, {"a": "x" * 64}])
async def test_bad_labels_are_refused(client: Client, config: Any, labels: JSON) -> None:
    with pytest.raises(Invalid, match=r"metadata\.labels"):
        await client.create(CONFIG_MAP, config("a", labels=labels))


async def test_a_created_object_brings_no_version(client: Client, config: Any) -> None:
    with pytest.raises(ApiError, match="resourceVersion should not be set on objects to be created"):
        await client.create(CONFIG_MAP, config("a", resourceVersion="1"))


async def test_a_write_of_an_older_version_conflicts(client: Client, config: Any, namespace: str) -> None:
    made = await client.create(CONFIG_MAP, config("a"))
    changed = await client.replace(CONFIG_MAP, made | {"data": {"k": "2"}})
    assert changed["data"] == {"k": "2"}
    assert int(changed["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
    with pytest.raises(Conflict, match="the object has been modified"):
        await client.replace(CONFIG_MAP, made | {"data": {"k": "3"}})
    version = made["metadata"]["resourceVersion"]
    patch = {"metadata": {"resourceVersion": version}, "data": {"k": "4"}}
    with pytest.raises(Conflict):
        await client.patch(CONFIG_MAP, "a", namespace, patch)
    with pytest.raises(Conflict):
        await client.delete(CONFIG_MAP, "a", namespace, resource_version=version)
    assert (await client.get(CONFIG_MAP, "a", namespace))["data"] == {"k": "2"}


async def test_a_write_that_changes_nothing_makes_no_version(
    client: Client, config: Any, namespace: str
) -> None:
    made = await client.create(CONFIG_MAP, config("a"))
    again = await client.replace(CONFIG_MAP, made)
    patched = await client.patch(CONFIG_MAP, "a", namespace, {"data": {"k": "v"}})
    versions = {obj["metadata"]["resourceVersion"] for obj in (made, again, patched)}
    assert len(versions) == 1


async def test_builtin_kinds_are_replaced_without_a_version_and_custom_ones_not(
    client: Client, config: Any, widget_type: Resource, widget: JSON
) -> None:
    await client.create(CONFIG_MAP, config("a"))
    assert (await client.replace(CONFIG_MAP, config("a", {"k": "2"})))["data"] == {"k": "2"}
    await client.create(widget_type, widget)
    with pytest.raises(Invalid, match=r"metadata\.resourceVersion"):
        await client.replace(widget_type, widget)


async def test_identity_cannot_be_changed(client: Client, config: Any, namespace: str) -> None:
    made = await client.create(CONFIG_MAP, config("a"))
    with pytest.raises(Invalid, match=r"metadata\.uid: .* field is immutable"):
        await client.patch(CONFIG_MAP, "a", namespace, {"metadata": {"uid": "another"}})
    with pytest.raises(Conflict, match="Precondition failed: UID"):
        await client.replace(CONFIG_MAP, made | {"metadata": made["metadata"] | {"uid": "another"}})
    with pytest.raises(BadRequest):
        await client.patch(CONFIG_MAP, "a", namespace, {"metadata": {"name": "b"}})
    after = await client.get(CONFIG_MAP, "a", namespace)
    assert after == made


async def test_generation_counts_changes_of_the_spec(
    client: Client, widget_type: Resource, widget: JSON, namespace: str
) -> None:
    made = await client.create(widget_type, widget)
    assert made["metadata"]["generation"] == 1
    labelled = await client.patch(widget_type, "w", namespace, {"metadata": {"labels": {"a": "b"}}})
    assert labelled["metadata"]["generation"] == 1
    resized = await client.patch(widget_type, "w", namespace, {"spec": {"size": 4}})
    assert resized["metadata"]["generation"] == 2
    status = await client.patch(
        widget_type, "w", namespace, {"status": {"phase": "Up"}}, subresource="status"
    )
    assert status["metadata"]["generation"] == 2


async def test_status_is_written_by_its_own_way_alone(
    client: Client, widget_type: Resource, widget: JSON, namespace: str
) -> None:
    made = await client.create(widget_type, widget | {"status": {"phase": "Up"}})
    assert "status" not in made
    patched = await client.patch(widget_type, "w", namespace, {"status": {"phase": "Up"}})
    assert "status" not in patched
    both = made | {"spec": {"size": 9}, "status": {"phase": "Up"}}
    written = await client.replace(widget_type, both, subresource="status")
    assert (written["status"], written["spec"]["size"]) == ({"phase": "Up"}, 3)
    replaced = await client.replace(widget_type, written | {"spec": {"size": 5}, "status": {}})
    assert (replaced["status"], replaced["spec"]["size"]) == ({"phase": "Up"}, 5)


async def test_a_kind_without_status_has_no_such_way(client: Client, config: Any, namespace: str) -> None:
    await client.create(CONFIG_MAP, config("a"))
    with pytest.raises(NotFound):
        await client.patch(CONFIG_MAP, "a", namespace, {"status": {}}, subresource="status")


async def test_defaults_and_rules_of_a_schema_hold(
    client: Client, widget_type: Resource, widget: JSON, namespace: str
) -> None:
    made = await client.create(widget_type, widget)
    assert made["spec"] == {"size": 3, "color": "red"}
    for spec, field in (
        ({"size": 10}, "spec.size"),
        ({"color": "green"}, "spec.color"),
        ({"tags": {"a": 1}}, "spec.tags.a"),
        ({"size": "big"}, "spec.size"),
        ({"parts": [{"name": "a"}, {"name": "a"}]}, "spec.parts[1]"),
    ):
        with pytest.raises(Invalid) as caught:
            await client.patch(widget_type, "w", namespace, {"spec": spec})
        assert field in {cause.get("field") for cause in (caught.value.details or {})["causes"]}


async def test_unknown_fields_are_dropped(client: Client, widget_type: Resource, widget: JSON) -> None:
    widget["spec"]["unheard"] = "of"
    made = await client.create(widget_type, widget)
    assert made["spec"] == {"size": 3, "color": "red"}


async def test_finalizers_hold_a_deleted_object(client: Client, config: Any, namespace: str) -> None:
    await client.create(CONFIG_MAP, config("a", finalizers=["example.com/mine"]))
    await client.delete(CONFIG_MAP, "a", namespace)
    held = await client.get(CONFIG_MAP, "a", namespace)
    assert held["metadata"]["deletionTimestamp"]
    await client.delete(CONFIG_MAP, "a", namespace)  # once more is no error
    more = {"metadata": {"finalizers": ["example.com/mine", "example.com/other"]}}
    with pytest.raises((Invalid, Forbidden), match="no new finalizers can be added"):
        await client.patch(CONFIG_MAP, "a", namespace, more)
    await client.patch(CONFIG_MAP, "a", namespace, {"metadata": {"finalizers": None}})
    with pytest.raises(NotFound):
        await client.get(CONFIG_MAP, "a", namespace)


async def test_owners_are_named_in_full(client: Client, config: Any) -> None:
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "u-1", "controller": True}
    made = await client.create(CONFIG_MAP, config("a", ownerReferences=[owner]))
    assert made["metadata"]["ownerReferences"] == [owner]
    with pytest.raises(Invalid, match=r"metadata\.ownerReferences\.uid"):
        await client.create(CONFIG_MAP, config("b", ownerReferences=[owner | {"uid": ""}]))
    with pytest.raises(Invalid, match="Only one reference can have Controller set to true"):
        await client.create(CONFIG_MAP, config("c", ownerReferences=[owner, owner | {"uid": "u-2"}]))


async def test_secrets_take_text_and_give_base64(client: Client, namespace: str) -> None:
    body = {"metadata": {"name": "s", "namespace": namespace}, "stringData": {"k": "v"}}
    made = await client.create(SECRET, body)
    assert (made["data"], made["type"]) == ({"k": "dg=="}, "Opaque")
    assert "stringData" not in made
    with pytest.raises((Invalid, BadRequest)):
        await client.create(SECRET, {"metadata": {"name": "t", "namespace": namespace}, "data": {"k": "?"}})


async def test_immutable_objects_keep_their_data(client: Client, config: Any, namespace: str) -> None:
    await client.create(CONFIG_MAP, config("a") | {"immutable": True})
    with pytest.raises(Invalid, match="field is immutable"):
        await client.patch(CONFIG_MAP, "a", namespace, {"data": {"k": "2"}})


def _deployment(namespace: str) -> JSON:
    labels = {"app": "x"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    return {"metadata": {"name": "d", "namespace": namespace}, "spec": spec}


async def test_a_deployment_gets_the_defaults_a_reconciler_meets(client: Client, namespace: str) -> None:
    made = await client.create(DEPLOYMENT, _deployment(namespace))
    spec = made["spec"]
    assert (spec["replicas"], spec["progressDeadlineSeconds"], spec["revisionHistoryLimit"]) == (1, 600, 10)
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
    }
    assert spec["template"]["spec"] == {
        "containers": [
            {
                "name": "c",
                "image": "i:1",
                "imagePullPolicy": "IfNotPresent",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    }
    with pytest.raises(Invalid, match="field is immutable"):
        await client.patch(DEPLOYMENT, "d", namespace, {"spec": {"selector": {"matchLabels": {"app": "y"}}}})


async def test_patches_of_every_kind(client: Client, namespace: str) -> None:
    await client.create(DEPLOYMENT, _deployment(namespace))
    merged = await client.patch(DEPLOYMENT, "d", namespace, {"spec": {"replicas": 2, "paused": None}})
    assert merged["spec"]["replicas"] == 2
    operations = [
        {"op": "test", "path": "/spec/replicas", "value": 2},
        {"op": "add", "path": "/metadata/labels", "value": {"a/b": "c"}},
        {"op": "replace", "path": "/metadata/labels/a~1b", "value": "d"},
    ]
    by_json = await client.patch(DEPLOYMENT, "d", namespace, operations, kind=PatchKind.JSON)
    assert by_json["metadata"]["labels"] == {"a/b": "d"}
    containers = [{"name": "s", "image": "i:2"}, {"name": "c", "env": [{"name": "E", "value": "1"}]}]
    strategic = {"spec": {"template": {"spec": {"containers": containers}}}}
    made = await client.patch(DEPLOYMENT, "d", namespace, strategic, kind=PatchKind.STRATEGIC)
    found = {item["name"]: item for item in made["spec"]["template"]["spec"]["containers"]}
    assert (found["c"]["image"], found["c"]["env"], found["s"]["image"]) == (
        "i:1",
        [{"name": "E", "value": "1"}],
        "i:2",
    )
    delete = {"spec": {"template": {"spec": {"containers": [{"name": "s", "$patch": "delete"}]}}}}
    made = await client.patch(DEPLOYMENT, "d", namespace, delete, kind=PatchKind.STRATEGIC)
    assert [item["name"] for item in made["spec"]["template"]["spec"]["containers"]] == ["c"]


async def test_a_patch_that_does_not_fit_is_refused(client: Client, config: Any, namespace: str) -> None:
    await client.create(CONFIG_MAP, config("a"))
    for operation in (
        {"op": "test", "path": "/data/k", "value": "other"},
        {"op": "remove", "path": "/data/none"},
    ):
        with pytest.raises(Invalid):
            await client.patch(CONFIG_MAP, "a", namespace, [operation], kind=PatchKind.JSON)


async def test_custom_resources_take_no_strategic_patch(
    client: Client, widget_type: Resource, widget: JSON, namespace: str
) -> None:
    await client.create(widget_type, widget)
    with pytest.raises(ApiError) as caught:
        await client.patch(widget_type, "w", namespace, {"spec": {"size": 4}}, kind=PatchKind.STRATEGIC)
    assert caught.value.status == 415

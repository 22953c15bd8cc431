"""Built-in kinds have the fields that Kubernetes gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from api.core import CONFIG_MAP, CRD, DEPLOYMENT, EVENT, LEASE, POD, SECRET, SERVICE
from controller.runtime.apiserver import FieldValidation, WriteOptions, fields
from controller.runtime.apiserver.builtins import AUTOSCALER, PERSISTENT_VOLUME_CLAIM
from controller.runtime.client import PatchKind
from controller.runtime.errors import BadRequest, Invalid

if TYPE_CHECKING:
    from api.resource import Resource
    from controller.runtime.apiserver import Core, MemoryClient

JSON = dict[str, Any]

POD_SPEC: JSON = {
    "containers": [
        {
            "name": "c",
            "image": "i",
            "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": 0.5, "memory": "1Gi"}, "requests": {"cpu": 1}},
            "livenessProbe": {"httpGet": {"path": "/", "port": "http"}},
        },
    ],
}


def _deployment(template_meta: JSON | None = None) -> JSON:
    labels = {"a": "b"}
    template = {"metadata": {"labels": labels, **(template_meta or {})}, "spec": POD_SPEC}
    return {"spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}}


@pytest.mark.parametrize(
    ("resource", "body", "field"),
    [
        (SECRET, {"stringdata": {"k": "v"}}, "stringdata"),
        (
            POD,
            {"spec": {"containers": [{"name": "c", "image": "i", "imagee": "j"}]}},
            "spec.containers[0].imagee",
        ),
        (DEPLOYMENT, _deployment({"nmae": "x"}), "spec.template.metadata.nmae"),
        (SERVICE, {"spec": {"ports": [{"port": 1, "target": 2}]}}, "spec.ports[0].target"),
        (LEASE, {"spec": {"holder": "me"}}, "spec.holder"),
        (CONFIG_MAP, {"status": {}}, "status"),
    ],
    ids=lambda value: value.kind if hasattr(value, "kind") else "",
)
def test_an_unknown_field_is_refused_when_strict_and_pruned_with_a_warning_otherwise(
    core: Core, resource: Resource, body: JSON, field: str
) -> None:
    kind, obj = core.kind(resource), {"metadata": {"name": "x"}, **body}
    with pytest.raises(BadRequest) as caught:
        core.create(kind, obj, "ns", WriteOptions(FieldValidation.STRICT))
    assert caught.value.message == (
        f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
        f'strict decoding error: unknown field "{field}"'
    )
    options = WriteOptions(FieldValidation.WARN)
    made = core.create(kind, obj, "ns", options).object
    assert options.warnings == [f'unknown field "{field}"']
    assert f"{field.rpartition('.')[2]}'" not in str(made)


@pytest.mark.parametrize(
    ("resource", "body", "field"),
    [
        (CONFIG_MAP, {"data": ["a"]}, "data"),
        (CONFIG_MAP, {"data": {"k": 1}}, "data.k"),
        (SECRET, {"stringData": "text"}, "stringData"),
        (SECRET, {"data": {"k": 1}}, "data.k"),
        (SERVICE, {"spec": {"ports": {"port": 1}}}, "spec.ports"),
        (SERVICE, {"spec": {"ports": ["http"]}}, "spec.ports[0]"),
        (DEPLOYMENT, {"spec": {"replicas": "3"}}, "spec.replicas"),
        (DEPLOYMENT, {"spec": {"replicas": 2**31}}, "spec.replicas"),
        (DEPLOYMENT, {"spec": {"replicas": True}}, "spec.replicas"),
        (CONFIG_MAP, {"immutable": "yes"}, "immutable"),
        (POD, {"spec": {"containers": [{"name": "c", "env": [{"name": "e", "value": 1}]}]}}, "env[0].value"),
        (POD, {"spec": {"containers": [None]}}, "spec.containers[0]"),
        (
            POD,
            {"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "lots"}}}]}},
            "resources.limits.cpu",
        ),
        (LEASE, {"spec": {"renewTime": "noon"}}, "spec.renewTime"),
    ],
    ids=lambda value: value.kind if hasattr(value, "kind") else "",
)
def test_a_wrong_type_is_refused_by_field(core: Core, resource: Resource, body: JSON, field: str) -> None:
    with pytest.raises(BadRequest, match="cannot be handled as a") as caught:
        core.create(core.kind(resource), {"metadata": {"name": "x"}, **body}, "ns")
    assert f"{field}: Invalid value" in caught.value.message


def test_a_missing_field_is_refused_by_name(core: Core) -> None:
    autoscaler = {"metadata": {"name": "x"}, "spec": {"minReplicas": 1}}
    with pytest.raises(Invalid) as caught:
        core.create(core.kind(AUTOSCALER), autoscaler, "ns")
    causes = (caught.value.details or {})["causes"]
    assert {cause["field"] for cause in causes} == {"spec.scaleTargetRef", "spec.maxReplicas"}


@pytest.mark.parametrize(
    ("resource", "body"),
    [
        (POD, {"spec": POD_SPEC}),
        (DEPLOYMENT, _deployment({"creationTimestamp": None, "annotations": {"a": "b"}}) | {"status": {}}),
        (CONFIG_MAP, {"data": {"k": "v"}, "binaryData": {"b": "aGk="}, "immutable": True}),
        (SECRET, {"stringData": {"k": "v"}, "data": {"l": "aGk="}, "type": "Opaque"}),
        (SERVICE, {"spec": {"clusterIP": "None", "ports": [{"name": "g", "port": 1, "targetPort": "g"}]}}),
        (EVENT, {"involvedObject": {"namespace": "ns"}, "eventTime": "2026-01-01T00:00:00.000001Z"}),
        (
            PERSISTENT_VOLUME_CLAIM,
            {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}},
        ),
    ],
    ids=lambda value: value.kind if hasattr(value, "kind") else "",
)
def test_what_kubernetes_accepts_passes_strict(core: Core, resource: Resource, body: JSON) -> None:
    options = WriteOptions(FieldValidation.STRICT)
    assert core.create(core.kind(resource), {"metadata": {"name": "x"}, **body}, "ns", options)


async def test_a_status_may_leave_out_fields_but_has_their_types(client: MemoryClient) -> None:
    await client.create(POD, {"metadata": {"name": "p", "namespace": "ns"}, "spec": POD_SPEC})
    status: JSON = {"containerStatuses": [{"name": "c", "ready": True}]}
    await client.patch(POD, "p", "ns", {"status": status}, subresource="status")
    status["containerStatuses"][0]["ready"] = "yes"
    with pytest.raises(BadRequest, match=r"status\.containerStatuses\[0\]\.ready"):
        await client.patch(POD, "p", "ns", {"status": status}, subresource="status")


@pytest.mark.parametrize("patch_kind", [PatchKind.MERGE, PatchKind.STRATEGIC])
def test_a_patch_is_checked_like_a_new_object(core: Core, patch_kind: PatchKind) -> None:
    kind = core.kind(CONFIG_MAP)
    core.create(kind, {"metadata": {"name": "x"}, "data": {"k": "v"}}, "ns")
    with pytest.raises(BadRequest, match=r"data\.k: Invalid value"):
        core.patch(kind, "x", "ns", {"data": {"k": 1}}, patch_kind)
    strict = WriteOptions(FieldValidation.STRICT)
    with pytest.raises(BadRequest, match='unknown field "dta"'):
        core.patch(kind, "x", "ns", {"dta": {"k": "w"}}, patch_kind, options=strict)


def test_what_did_not_change_is_not_looked_at() -> None:
    stored = {"metadata": {}, "data": ["of a server that checked nothing"]}
    assert not fields.prune(CONFIG_MAP, stored | {"immutable": True}, stored).wrong
    assert fields.prune(CONFIG_MAP, stored, None).wrong


def test_a_kind_without_a_definition_keeps_its_fields() -> None:
    assert not fields.prune(CRD, {"spec": {"any": 1}}, None).unknown

"""The base of all types: names, round trips, what is written and what is left out."""

import pytest
from pydantic import Field, ValidationError

from api import core
from api.meta import Model, ObjectMeta, camel_case
from api.resource import Resource


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("name", "name"),
        ("service_account_name", "serviceAccountName"),
        ("storage_uri", "storageUri"),
        ("pod_ip", "podIP"),
        ("cluster_ips", "clusterIPs"),
        ("host_ip", "hostIP"),
        ("grpc_url", "grpcUrl"),
        ("image_id", "imageID"),
        ("model_id", "modelId"),
        ("open_apiv3_schema", "openAPIV3Schema"),
        ("resource_schema", "schema"),
    ],
)
def test_wire_names_are_spelt_as_kubernetes_spells_them(name: str, wire: str) -> None:
    assert camel_case(name) == wire


def test_an_object_that_passes_through_is_unchanged() -> None:
    raw = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {}, "futureField": [1, {"a": None}]},
        "spec": {
            "containers": [
                {
                    "name": "c",
                    "image": "i",
                    "env": [],
                    "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
                    "livenessProbe": {"httpGet": {"port": "http"}, "grpcish": True},
                    "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
                }
            ],
            "hostNetwork": False,
        },
        "status": {"podIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.2"}]},
        "somethingElse": "kept",
    }
    assert core.Pod.parse(raw).dump() == raw


def test_fields_that_were_never_given_are_left_out() -> None:
    assert core.Deployment().dump() == {"apiVersion": "apps/v1", "kind": "Deployment"}


def test_empty_values_that_were_given_are_written() -> None:
    assert core.ConfigMap(data={}).dump()["data"] == {}


def test_fields_filled_in_after_construction_are_written() -> None:
    deployment = core.Deployment()
    deployment.metadata.labels["a"] = "b"
    deployment.spec.template.spec.containers.append(core.Container(name="c"))
    dumped = deployment.dump()
    assert dumped["metadata"] == {"labels": {"a": "b"}}
    assert dumped["spec"]["template"]["spec"] == {"containers": [{"name": "c"}]}


def test_none_removes_a_field() -> None:
    pod = core.Pod.parse({"spec": {"nodeName": "n"}})
    pod.spec.node_name = None
    assert "nodeName" not in pod.dump()["spec"]


def test_the_dump_shares_nothing_with_the_object() -> None:
    config = core.ConfigMap.parse({"metadata": {"labels": {"a": "b"}}, "data": {}, "unknown": {"list": []}})
    before = config.dump()
    changed = config.dump()
    changed["metadata"]["labels"]["x"] = changed["data"]["x"] = "y"
    changed["unknown"]["list"].append("y")
    assert config.dump() == before


def test_items_of_a_list_get_their_type_back() -> None:
    secret = core.Secret.parse({"metadata": {"name": "s"}})
    assert (secret.api_version, secret.kind) == ("v1", "Secret")


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({"replicas": "2"}, "spec.replicas"),
        ({"template": {"spec": {"containers": {}}}}, "spec.template.spec.containers"),
        ({"template": {"spec": {"containers": [{"name": 1}]}}}, "spec.template.spec.containers.0.name"),
    ],
)
def test_a_wrong_type_is_refused_by_name(spec: object, where: str) -> None:
    with pytest.raises(ValidationError) as caught:
        core.Deployment.parse({"spec": spec})
    assert [".".join(map(str, error["loc"])) for error in caught.value.errors()] == [where]


def test_fields_marked_always_are_written_with_their_default() -> None:
    class Status(Model):
        ALWAYS = frozenset({"ready_pods"})
        ready_pods: int = 0
        other_pods: int = 0
        names: list[str] = Field(default_factory=list)

    assert Status().dump() == {"readyPods": 0}


def test_an_owner_reference_controls_and_blocks() -> None:
    deployment = core.Deployment(metadata=ObjectMeta(name="d", uid="u"))
    assert deployment.owner_reference().dump() == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "d",
        "uid": "u",
        "controller": True,
        "blockOwnerDeletion": True,
    }


def test_a_resource_knows_its_api_version() -> None:
    assert core.POD.api_version == "v1"
    assert Resource("apps", "v1", "Deployment", "deployments").api_version == "apps/v1"
    assert core.POD.list_kind == "PodList"

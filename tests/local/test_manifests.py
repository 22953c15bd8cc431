import json
from pathlib import Path

import pytest

import local.profiles
from local import manifests
from local.errors import LocalError
from local.home import NAMESPACE
from local.profiles import Profiles


def test_every_object_is_in_the_namespace_and_complete() -> None:
    objects = list(manifests.objects(etcd_port=1234, s3_port=5678))
    assert {obj["metadata"]["namespace"] for obj in objects} == {NAMESPACE}
    assert "$" not in json.dumps(objects)
    names = {(obj["kind"], obj["metadata"]["name"]) for obj in objects}
    assert ("Deployment", "modelmesh-controller") in names
    assert {("Pod", "etcd"), ("Pod", "minio")} <= names


def test_the_secrets_lead_to_etcd_and_to_the_bucket() -> None:
    objects = manifests.objects(etcd_port=1234, s3_port=5678)
    secrets = {obj["metadata"]["name"]: obj["stringData"] for obj in objects if obj["kind"] == "Secret"}
    etcd = json.loads(secrets["model-serving-etcd"]["etcd_connection"])
    assert etcd["endpoints"] == "http://127.0.0.1:1234"
    storage = json.loads(secrets["storage-config"]["localMinIO"])
    assert storage["endpoint_url"] == "http://127.0.0.1:5678"
    assert storage["bucket"] == "modelmesh-example-models"


SERVER_TYPES = ("mlserver", "ovms", "torchserve", "triton")


def test_the_shipped_runtimes_are_found_by_their_server_types() -> None:
    found = list(manifests.runtimes(SERVER_TYPES))
    assert [runtime["metadata"]["name"] for runtime in found] == [
        "mlserver-1.x",
        "ovms-1.x",
        "torchserve-0.x",
        "triton-2.x",
    ]
    assert {runtime["metadata"]["namespace"] for runtime in found} == {NAMESPACE}


def test_a_server_type_without_a_shipped_runtime_is_named() -> None:
    with pytest.raises(LocalError, match=r"no shipped runtime for vllm; there is one for each of: mlserver"):
        list(manifests.runtimes(["mlserver", "vllm"]))


def test_every_container_has_a_local_profile() -> None:
    shipped = Profiles.load(Path(local.profiles.__file__).parent)
    for obj in [*manifests.objects(etcd_port=1, s3_port=2), *manifests.runtimes(SERVER_TYPES)]:
        spec = obj.get("spec", {})
        for container in spec.get("template", {}).get("spec", spec).get("containers", []):
            command = container.get("command", [""])[0]
            shipped.find(container["image"], command)

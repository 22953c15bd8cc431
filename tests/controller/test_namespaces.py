"""Which namespaces a controller serves, what it makes in each, and what it takes back."""

import base64
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

NAME = "modelmesh-serving-mlserver-1.x"
USER = "user"
CONNECTION = {
    "endpoints": "https://etcd:2379",
    "root_prefix": "root",
    "certificate_file": "ca.crt",
    "client_key_file": "absent.key",
    "unknown": "x",
}


def _exists(obj: Any) -> bool:
    return obj is not None


def _gone(obj: Any) -> bool:
    return obj is None


def _connection(secret: Any) -> dict[str, Any]:
    return json.loads(base64.b64decode(secret["data"]["etcd_connection"]))  # type: ignore[no-any-return]


@pytest.fixture
async def cluster(idle_world: Any) -> Any:
    """Cluster scope, with a namespace that nobody serves yet."""
    world = idle_world
    world.environment = replace(world.environment, namespace_scope=False)
    await world.create_namespace(USER)
    return world


async def test_a_user_namespace_gets_its_own_connection_below_its_own_prefix(
    cluster: Any, controller_in: Any
) -> None:
    world = cluster
    secret = {"etcd_connection": CONNECTION, "ca.crt": "PEM", "other": "x"}
    await world.put_secret("model-serving-etcd", secret)
    await world.enable(USER)
    async with controller_in(world):
        await world.until("Service", "modelmesh-serving", _exists, USER)
        assert await world.get("Secret", "model-serving-etcd", USER) is None
        await world.create_runtime("ClusterServingRuntime")
        copy = await world.until("Secret", "model-serving-etcd", _exists, USER)
        assert _connection(copy) == {
            "endpoints": "https://etcd:2379",
            "root_prefix": "root/mm_ns/user",
            "certificate_file": "ca.crt",
            "client_key_file": "absent.key",
        }
        assert copy["data"].keys() == {"etcd_connection", "ca.crt"}
        assert base64.b64decode(copy["data"]["ca.crt"]) == b"PEM"
        assert copy["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "modelmesh-controller"

        newer = {"etcd_connection": {"endpoints": "http://other:2379"}}
        await world.put_secret("model-serving-etcd", newer)
        copy = await world.until("Secret", "model-serving-etcd", lambda s: "ca.crt" not in s["data"], USER)
        assert _connection(copy) == {"endpoints": "http://other:2379", "root_prefix": "/mm_ns/user"}

        await world.delete("ClusterServingRuntime", "mlserver-1.x")
        await world.until("Secret", "model-serving-etcd", _gone, USER)
        await world.until("ConfigMap", "tc-config", _gone, USER)
        assert _connection(await world.get("Secret", "model-serving-etcd")) == newer["etcd_connection"]


async def test_a_connection_that_cannot_be_read_is_told_and_changes_no_copy(
    cluster: Any, controller_in: Any
) -> None:
    world = cluster
    await world.put_secret("model-serving-etcd", {"etcd_connection": CONNECTION})
    await world.create_runtime("ClusterServingRuntime")
    await world.enable(USER)
    async with controller_in(world):
        before = await world.until("Secret", "model-serving-etcd", _exists, USER)
        await world.put_secret("model-serving-etcd", {"etcd_connection": "{"})
        await world.events("InvalidConnection", kind="Secret")
        assert (await world.get("Secret", "model-serving-etcd", USER))["data"] == before["data"]


async def test_a_connection_that_no_mesh_can_use_is_told_in_the_own_namespace_too(world: Any) -> None:
    await world.create_runtime()
    await world.put_secret("model-serving-etcd", {"etcd_connection": CONNECTION, "ca.crt": "PEM"})
    (event,) = await world.events("InvalidConnection", kind="Secret")
    assert "client_key_file names 'absent.key', which is not there" in event["message"]
    await world.put_secret("storage-config", {"k": {}})  # wakes the namespace; the Secret is told of once
    await world.settled()
    assert [e["count"] for e in await world.events("InvalidConnection", kind="Secret")] == [1]


async def test_a_disabled_namespace_loses_everything_and_its_models_say_so(
    cluster: Any, controller_in: Any
) -> None:
    world = cluster
    await world.put_secret("model-serving-etcd", {"etcd_connection": CONNECTION})
    await world.create_runtime("ClusterServingRuntime")
    await world.enable(USER)
    world.mesh.say("m__isvc-", "LOADED")
    await world.pods_come_up(USER)
    await world.create_isvc(namespace=USER)
    async with controller_in(world):
        ready = await world.until("InferenceService", "m", _is_ready, USER)
        assert ready["status"]["url"] == "grpc://modelmesh-serving.user:8033"
        await world.until("Deployment", NAME, _exists, USER)
        await world.enable(USER, None)
        for kind, name in (
            ("Service", "modelmesh-serving"),
            ("ConfigMap", "tc-config"),
            ("Secret", "model-serving-etcd"),
            ("Deployment", NAME),
        ):
            await world.until(kind, name, _gone, USER)
        left = await world.until("InferenceService", "m", lambda o: not _is_ready(o), USER)
        assert "url" not in left["status"]
        assert "modelStatus" not in left["status"]

        await world.enable(USER)
        await world.until("InferenceService", "m", _is_ready, USER)
        await world.until("Deployment", NAME, _exists, USER)


def _is_ready(obj: Any) -> bool:
    conditions = ((obj or {}).get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


async def test_the_own_namespace_can_be_disabled_by_its_label(cluster: Any, controller_in: Any) -> None:
    world = cluster
    await world.create_runtime()
    async with controller_in(world):
        await world.until("Deployment", NAME, _exists)
        await world.enable("modelmesh-serving", "false")
        await world.until("Deployment", NAME, _gone)
        await world.until("Service", "modelmesh-serving", _gone)


async def test_controllers_side_by_side_leave_each_others_namespaces_alone(
    cluster: Any, controller_in: Any
) -> None:
    """One serves the cluster's labelled namespaces, another a namespace of its own."""
    world = cluster
    await world.create_runtime("ClusterServingRuntime")
    single = replace(world.environment, namespace=USER, namespace_scope=True)
    world.mesh.say("m__isvc-", "LOADED")
    await world.pods_come_up(USER)
    await world.create_isvc(namespace=USER)
    async with controller_in(world, single):
        await world.until("InferenceService", "m", _is_ready, USER)
        before = await _everything(world)
        deletions = _counted(world, "delete")
        async with controller_in(world):
            await world.until("Deployment", NAME, _exists)
            await world.change("InferenceService", "m", {"metadata": {"labels": {"a": "b"}}}, USER)
            await world.create_runtime(namespace=USER, replicas=5)
            await world.until("Deployment", NAME, lambda o: o and o["spec"]["replicas"] == 5, USER)
        assert not deletions
        assert (await _everything(world)).items() >= before.items()
        assert _is_ready(await world.get("InferenceService", "m", USER))


async def _everything(world: Any) -> dict[str, str]:
    """Returns the uid of what the controller made in the user's namespace."""
    names = {
        "Service": "modelmesh-serving",
        "ConfigMap": "tc-config",
        "Deployment": NAME,
    }
    found = {kind: await world.get(kind, name, USER) for kind, name in names.items()}
    return {kind: obj["metadata"]["uid"] for kind, obj in found.items() if obj is not None}


def _counted(world: Any, method: str) -> Counter[str]:
    """Counts the calls of a method of the client, by kind."""
    calls: Counter[str] = Counter()
    original = getattr(world.client, method)

    async def counted(resource: Any, *args: Any, **options: Any) -> Any:
        calls[resource.kind] += 1
        return await original(resource, *args, **options)

    setattr(world.client, method, counted)
    return calls


async def test_a_settled_installation_is_not_written_again(cluster: Any, controller_in: Any) -> None:
    """A controller that starts anew finds all as it should be, and writes nothing."""
    world = cluster
    await world.create_etcd_secret()
    await world.create_runtime("ClusterServingRuntime", {"serving.kserve.io/autoscalerClass": "hpa"})
    await world.enable(USER)
    world.mesh.say("m__isvc-", "LOADED")
    await world.pods_come_up(USER)
    await world.create_isvc(namespace=USER)
    async with controller_in(world):
        await world.until("InferenceService", "m", _is_ready, USER)
        await world.until("HorizontalPodAutoscaler", NAME, _exists, USER)
        await world.settled()
    writes = [_counted(world, method) for method in ("create", "patch", "replace", "delete")]
    calls = len(world.mesh.calls)
    async with controller_in(world):
        await world.asked(lambda mesh: len(mesh.calls) > calls)
        await world.settled()
    assert [dict(calls) for calls in writes] == [{}, {}, {}, {}]

"""PersistentVolumeClaims, from the storage Secret and from models to the pods that mount them."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from api.core import Secret
from controller import claims

NAME = "modelmesh-serving-mlserver-1.x"


def _secret(**entries: Any) -> Secret:
    texts = {key: v if isinstance(v, bytes) else json.dumps(v).encode() for key, v in entries.items()}
    data = {key: base64.b64encode(text).decode() for key, text in texts.items()}
    return Secret.parse({"metadata": {"name": "storage-config"}, "data": data})


def test_claims_of_the_secret_are_those_of_type_pvc_with_a_name() -> None:
    secret = _secret(
        a={"type": "pvc", "name": "one"},
        b={"type": "pvc", "name": ""},
        c={"type": "s3", "name": "two"},
        d={"type": "pvc"},
        e={"type": "http", "headers": {"X": "y"}},
        f=["type", "pvc"],
        g=b"{no json",
        h=b"\xff\xfe",
    )
    assert claims.of_secret(secret) == {"one"}
    assert claims.of_secret(None) == set()


@pytest.mark.parametrize("name", ["models", "a-1", "x" * 63])
def test_a_volume_has_its_claims_name_where_it_can(name: str) -> None:
    assert claims.volume_name(name) == name


@pytest.mark.parametrize("name", ["models.v1", "x" * 64])
def test_a_claims_name_that_no_volume_can_have_gives_another(name: str) -> None:
    given = claims.volume_name(name)
    assert claims.volume_name(given) == given
    assert given != claims.volume_name(f"{name}a")


def _mounted(*expected: str) -> Any:
    def check(obj: Any) -> bool:
        if obj is None:
            return False
        pod = obj["spec"]["template"]["spec"]
        sources = [v["persistentVolumeClaim"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
        server = next(c for c in pod["containers"] if c["name"] == "mlserver")
        paths = {m["mountPath"] for m in server["volumeMounts"]}
        return [s["claimName"] for s in sources] == sorted(expected) and paths >= {
            f"/pvc_mounts/{name}" for name in expected
        }

    return check


async def test_claims_of_the_storage_secret_are_mounted_as_they_come_and_go(world: Any) -> None:
    await world.create_runtime()
    await world.until("Deployment", NAME, _mounted())
    entries = {"two": {"type": "pvc", "name": "claim-2"}, "one": {"type": "pvc", "name": "claim-1"}}
    await world.put_secret("storage-config", entries | {"s3": {"type": "s3"}, "broken": "{"})
    await world.until("Deployment", NAME, _mounted("claim-1", "claim-2"))
    events = await world.events("InvalidStorage", kind="Secret")
    assert events[0]["message"].endswith(": broken")
    await world.put_secret("storage-config", {"one": {"type": "pvc", "name": "claim-1"}})
    await world.until("Deployment", NAME, _mounted("claim-1"))
    await world.delete("Secret", "storage-config")
    await world.until("Deployment", NAME, _mounted())


async def test_a_models_claim_is_mounted_where_any_is_allowed_and_it_exists(world: Any) -> None:
    await world.create_runtime()
    await world.create_isvc(storage=None, storageUri="pvc://claim/model")
    await world.create_isvc("absent", storage=None, storageUri="pvc://nowhere/model")
    await world.create_claim("claim")
    await world.until("Deployment", NAME, _mounted())
    await world.configure(allowAnyPVC=True)
    await world.until("Deployment", NAME, _mounted("claim"))
    await world.create_claim("nowhere")
    await world.until("Deployment", NAME, _mounted("claim", "nowhere"))
    await world.delete("InferenceService", "absent")
    await world.until("Deployment", NAME, _mounted("claim"))


async def test_claims_of_other_runtimes_models_are_not_mounted(world: Any) -> None:
    await world.configure(allowAnyPVC=True)
    await world.create_claim("claim")
    await world.create_runtime()
    await world.create_isvc()
    await world.create_isvc("onnx", "onnx", storage=None, storageUri="pvc://claim/model")
    await world.ready("onnx", status="False", message="No ServingRuntime supports")
    assert _mounted()(await world.until("Deployment", NAME, lambda o: o and o["spec"]["replicas"] == 2))


async def test_without_a_watch_secrets_are_read_when_needed(idle_world: Any, controller_in: Any) -> None:
    world = idle_world
    world.sources = replace(world.sources, secrets=False)
    await world.put_secret("storage-config", {"one": {"type": "pvc", "name": "claim"}})
    await world.create_runtime()
    async with controller_in(world):
        await world.until("Deployment", NAME, _mounted("claim"))


async def test_the_storage_secrets_name_is_read_once_and_a_change_is_told(
    idle_world: Any, controller_in: Any
) -> None:
    world = idle_world
    await world.create_runtime()
    async with controller_in(world):
        await world.until("Deployment", NAME, _mounted())
        await world.configure(storageSecretName="other", podsPerRuntime=1)
        events = await world.events("RestartNeeded", kind="ConfigMap")
        assert "storageSecretName" in events[0]["message"]
        await world.create_isvc()
        deployment = await world.until("Deployment", NAME, lambda o: o["spec"]["replicas"] == 1)
        volumes = {v["name"]: v for v in deployment["spec"]["template"]["spec"]["volumes"]}
        assert volumes["storage-config"]["secret"]["secretName"] == "storage-config"

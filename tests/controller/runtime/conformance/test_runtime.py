"""The library's own parts on both servers: cache, ensure, events."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

from api.core import CONFIG_MAP, DEPLOYMENT, EVENT, ConfigMap
from controller.runtime import (
    Cache,
    Controller,
    EventRecorder,
    Manager,
    PatchKind,
    Request,
    Result,
    Scope,
    ensure,
)

if TYPE_CHECKING:
    from controller.runtime import Client

JSON = dict[str, Any]


async def test_a_cache_follows_the_server(
    client: Client, namespace: str, config: Any, eventually: Any
) -> None:
    for number in range(3):
        await client.create(CONFIG_MAP, config(f"c{number}"))
    cache = Cache(client, namespaces=[namespace])
    lister = cache.lister(ConfigMap, Scope(field_selector="metadata.name!=c9"))
    running = asyncio.create_task(cache.run())
    await cache.wait_synced()
    assert {"c0", "c1", "c2"} <= {item.name for item in lister.list(namespace)}
    await client.create(CONFIG_MAP, config("c3"))
    await client.patch(CONFIG_MAP, "c0", namespace, {"data": {"k": "2"}})
    await client.delete(CONFIG_MAP, "c1", namespace)
    await eventually(lambda: lister.get("c3", namespace) and not lister.get("c1", namespace))
    await eventually(lambda: (found := lister.get("c0", namespace)) and found.data == {"k": "2"})
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_cache_outlives_the_loss_of_history(
    client: Client, namespace: str, config: Any, eventually: Any, backend: Any
) -> None:
    await client.create(CONFIG_MAP, config("a"))
    cache = Cache(client, namespaces=[namespace])
    lister = cache.lister(ConfigMap)
    running = asyncio.create_task(cache.run())
    await cache.wait_synced()
    await backend.forget()
    await client.create(CONFIG_MAP, config("b"))
    await eventually(lambda: lister.get("b", namespace))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def _deployment(namespace: str, image: str, **container: Any) -> JSON:
    labels = {"app": "x"}
    container |= {"name": "c", "image": image, "resources": {"limits": {"cpu": "1000m", "memory": "1Gi"}}}
    spec = {"volumes": [{"name": "v", "configMap": {"name": "x"}}], "containers": [container]}
    template = {"metadata": {"labels": labels}, "spec": spec}
    return {
        "metadata": {"name": "d", "namespace": namespace},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


async def test_ensure_writes_once_and_then_only_differences(client: Client, namespace: str) -> None:
    probe = {"httpGet": {"path": "/", "port": 80}}
    desired = _deployment(namespace, "i:1", readinessProbe=probe, ports=[{"containerPort": 80}])
    assert (await ensure(client, DEPLOYMENT, desired)).action == "created"
    assert (await ensure(client, DEPLOYMENT, desired)).action == "unchanged"
    sidecar = [
        {"op": "add", "path": "/spec/template/spec/containers/-", "value": {"name": "s", "image": "i"}}
    ]
    await client.patch(DEPLOYMENT, "d", namespace, sidecar, kind=PatchKind.JSON)
    assert (await ensure(client, DEPLOYMENT, desired)).action == "unchanged"
    made = await ensure(client, DEPLOYMENT, _deployment(namespace, "i:2"))
    assert made.action == "updated"
    containers = made.object["spec"]["template"]["spec"]["containers"]
    assert [(item["name"], item["image"]) for item in containers] == [("c", "i:2"), ("s", "i")]
    assert "readinessProbe" not in containers[0]


async def test_an_event_is_found_beside_its_object(client: Client, namespace: str, config: Any) -> None:
    about = ConfigMap.parse(await client.create(CONFIG_MAP, config("a")))
    recorder = EventRecorder(client, "tester")
    for _ in range(3):
        await recorder.event(about, "Warning", "Broken", "it does not work")
    found = await client.list(EVENT, namespace, field_selector="involvedObject.name=a")
    (event,) = found.items
    assert (event["reason"], event["count"], event["source"]) == ("Broken", 3, {"component": "tester"})


class Copier:
    """Gives each ConfigMap that asks for it a copy."""

    def __init__(self, manager: Manager) -> None:
        self._client = manager.client
        self._configs = manager.cache.lister(ConfigMap)

    async def reconcile(self, request: Request) -> Result:
        source = self._configs.get(request.name, request.namespace)
        if source is not None and "copy" in source.metadata.labels:
            owner = source.owner_reference().dump()
            metadata = {
                "name": f"{request.name}-copy",
                "namespace": request.namespace,
                "ownerReferences": [owner],
            }
            await ensure(self._client, CONFIG_MAP, {"metadata": metadata, "data": source.data})
        return Result()


async def test_a_controller_converges_and_mends_what_others_change(
    client: Client, namespace: str, config: Any, eventually: Any
) -> None:
    manager = Manager(client, namespaces=[namespace])
    copier = Copier(manager)
    name = f"copier-{secrets.token_hex(4)}"
    Controller(name, copier).watches(ConfigMap).owns(ConfigMap).register(manager)
    running = asyncio.create_task(manager.run())
    lister = manager.cache.lister(ConfigMap)

    def copied(data: JSON) -> bool:
        found = lister.get("a-copy", namespace)
        return found is not None and found.data == data

    await client.create(CONFIG_MAP, config("a", {"k": "1"}, labels={"copy": ""}))
    await eventually(lambda: copied({"k": "1"}))
    await client.patch(CONFIG_MAP, "a-copy", namespace, {"data": {"k": "broken"}})
    await eventually(lambda: copied({"k": "broken"}) or copied({"k": "1"}))
    await eventually(lambda: copied({"k": "1"}))
    await client.patch(CONFIG_MAP, "a", namespace, {"data": {"k": "2"}})
    await eventually(lambda: copied({"k": "2"}))
    await client.delete(CONFIG_MAP, "a-copy", namespace)
    await eventually(lambda: copied({"k": "2"}))
    manager.stop()
    await running

"""What every `Client` promises, on the in-memory one and on the HTTP one with the server behind it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from api.core import CONFIG_MAP, DEPLOYMENT, SECRET
from api.resource import Resource
from controller.runtime.apiserver import Core, MemoryClient
from controller.runtime.client import Client, PatchKind
from controller.runtime.errors import AlreadyExists, BadRequest, Conflict, Gone, Invalid, NotFound
from controller.runtime.http_client import load_client
from local.apiserver import LocalApiServer, LogRequest, write_kubeconfig

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

JSON = dict[str, Any]
NAMESPACE = "modelmesh-serving"
PREDICTOR = Resource("serving.kserve.io", "v1alpha1", "Predictor", "predictors")


async def _no_logs(_request: LogRequest) -> AsyncGenerator[bytes, None]:
    yield b""


@pytest.fixture(params=["memory", pytest.param("http", marks=pytest.mark.e2e)])
async def client(request: pytest.FixtureRequest, core: Core, tmp_path: Path) -> AsyncIterator[Client]:
    if request.param == "memory":
        yield MemoryClient(core)
        return
    server = LocalApiServer(core, pod_logs=_no_logs)
    await server.start()
    write_kubeconfig(tmp_path / "kubeconfig", server.url, NAMESPACE)
    async with await load_client(tmp_path / "kubeconfig") as http:
        yield http
    await server.stop()


def _config(name: str, **labels: str) -> JSON:
    return {"metadata": {"name": name, "namespace": NAMESPACE, "labels": labels}, "data": {"k": "v"}}


def _predictor(**spec: Any) -> JSON:
    return {
        "metadata": {"name": "p", "namespace": NAMESPACE},
        "spec": {"modelType": {"name": "sklearn"}} | spec,
    }


async def test_create_get_replace_delete(client: Client) -> None:
    made = await client.create(CONFIG_MAP, _config("a"))
    assert await client.get(CONFIG_MAP, "a", NAMESPACE) == made
    made["data"] = {"k": "2"}
    changed = await client.replace(CONFIG_MAP, made)
    assert changed["data"] == {"k": "2"}
    with pytest.raises(Conflict):
        await client.replace(CONFIG_MAP, made | {"data": {}})
    with pytest.raises(Conflict):
        await client.delete(CONFIG_MAP, "a", NAMESPACE, resource_version=made["metadata"]["resourceVersion"])
    await client.delete(CONFIG_MAP, "a", NAMESPACE)
    with pytest.raises(NotFound, match='configmaps "a" not found'):
        await client.get(CONFIG_MAP, "a", NAMESPACE)
    with pytest.raises(NotFound):
        await client.delete(CONFIG_MAP, "a", NAMESPACE)


async def test_errors_keep_type_and_details(client: Client) -> None:
    await client.create(CONFIG_MAP, _config("a"))
    with pytest.raises(AlreadyExists) as caught:
        await client.create(CONFIG_MAP, _config("a"))
    assert caught.value.details == {"name": "a", "kind": "configmaps"}
    with pytest.raises(Invalid) as refused:
        await client.create(PREDICTOR, _predictor(gpu="maybe"))
    assert [cause["field"] for cause in (refused.value.details or {})["causes"]] == ["spec.gpu"]
    with pytest.raises(NotFound):
        await client.list(Resource("x.example.com", "v1", "X", "xs"))
    with pytest.raises(BadRequest, match="unable to parse"):
        await client.list(CONFIG_MAP, label_selector="a in b")


async def test_lists_select_and_page(client: Client) -> None:
    for number in range(3):
        await client.create(CONFIG_MAP, _config(f"c{number}", number=str(number)))
    first = await client.list(CONFIG_MAP, NAMESPACE, limit=2)
    second = await client.list(CONFIG_MAP, NAMESPACE, limit=2, continue_token=first.continue_token)
    assert [item["metadata"]["name"] for item in first.items + second.items] == ["c0", "c1", "c2"]
    assert {(item["apiVersion"], item["kind"]) for item in first.items} == {("v1", "ConfigMap")}
    assert first.resource_version == second.resource_version
    selected = await client.list(CONFIG_MAP, label_selector="number in (0,2)")
    assert [item["metadata"]["name"] for item in selected.items] == ["c0", "c2"]
    named = await client.list(CONFIG_MAP, NAMESPACE, field_selector="metadata.name=c1")
    assert [item["metadata"]["name"] for item in named.items] == ["c1"]


async def test_patches_of_every_kind(client: Client) -> None:
    labels = {"app": "x"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "1"}]}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    await client.create(DEPLOYMENT, {"metadata": {"name": "d", "namespace": NAMESPACE}, "spec": spec})
    await client.patch(DEPLOYMENT, "d", NAMESPACE, {"spec": {"replicas": 2}})
    await client.patch(
        DEPLOYMENT,
        "d",
        NAMESPACE,
        [{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}],
        kind=PatchKind.JSON,
    )
    containers = {"spec": {"template": {"spec": {"containers": [{"name": "s", "image": "2"}]}}}}
    made = await client.patch(DEPLOYMENT, "d", NAMESPACE, containers, kind=PatchKind.STRATEGIC)
    assert (made["spec"]["replicas"], made["metadata"]["labels"]) == (2, {"a": "b"})
    assert [item["name"] for item in made["spec"]["template"]["spec"]["containers"]] == ["c", "s"]
    with pytest.raises(Invalid, match="JSON patch operation 0"):
        await client.patch(DEPLOYMENT, "d", NAMESPACE, [{"op": "remove", "path": "/x"}], kind=PatchKind.JSON)


async def test_status_has_its_own_endpoint(client: Client) -> None:
    made = await client.create(PREDICTOR, _predictor())
    assert made["status"]["activeModelState"] == "Pending"
    made["status"]["activeModelState"] = "Loaded"
    ignored = await client.replace(PREDICTOR, made)
    assert ignored["status"]["activeModelState"] == "Pending"
    written = await client.replace(PREDICTOR, made, subresource="status")
    assert written["status"]["activeModelState"] == "Loaded"
    status = {"status": {"transitionStatus": "InProgress"}}
    patched = await client.patch(PREDICTOR, "p", NAMESPACE, status, subresource="status")
    assert (patched["status"]["activeModelState"], patched["status"]["transitionStatus"]) == (
        "Loaded",
        "InProgress",
    )


async def test_server_side_apply(client: Client) -> None:
    made = await client.apply(CONFIG_MAP, _config("a"), field_manager="one")
    assert made["metadata"]["managedFields"][0]["manager"] == "one"
    other = _config("a") | {"data": {"k": "other"}}
    with pytest.raises(Conflict, match='conflict with "one"'):
        await client.apply(CONFIG_MAP, other, field_manager="two", force=False)
    assert (await client.apply(CONFIG_MAP, other, field_manager="two"))["data"] == {"k": "other"}


async def test_a_watch_resumes_selects_and_ends(client: Client) -> None:
    await client.create(CONFIG_MAP, _config("a", app="x"))
    version = (await client.list(CONFIG_MAP)).resource_version
    await client.create(CONFIG_MAP, _config("b", app="y"))
    await client.patch(CONFIG_MAP, "a", NAMESPACE, {"data": {"k": "2"}})
    await client.create(SECRET, {"metadata": {"name": "s", "namespace": NAMESPACE}})
    await client.delete(CONFIG_MAP, "a", NAMESPACE)
    watch = client.watch(
        CONFIG_MAP,
        NAMESPACE,
        resource_version=version,
        label_selector="app=x",
        timeout_seconds=1,
    )
    async with asyncio.timeout(10):
        events = [(event.type, event.object["metadata"].get("name", "")) async for event in watch]
    assert events == [("MODIFIED", "a"), ("DELETED", "a"), ("BOOKMARK", "")]


async def test_a_live_watch_sees_each_change_as_it_happens(client: Client) -> None:
    version = (await client.list(CONFIG_MAP)).resource_version
    async with asyncio.timeout(10), aclosing(client.watch(CONFIG_MAP, resource_version=version)) as watch:
        for name in ("a", "b"):
            waiting = asyncio.ensure_future(anext(watch))
            await client.create(CONFIG_MAP, _config(name))
            event = await waiting
            assert (event.type, event.object["metadata"]["name"]) == ("ADDED", name)


async def test_a_watch_from_an_unknown_version_is_gone(client: Client) -> None:
    with pytest.raises(Gone):
        async with asyncio.timeout(10):
            await anext(client.watch(CONFIG_MAP, resource_version="99999999"))

"""The HTTP side: discovery, negotiation, streams and refusals, as clients other than ours see them."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from api.core import CONFIG_MAP, POD
from local.apiserver import AddressInUse, LocalApiServer

if TYPE_CHECKING:
    import aiohttp

    from controller.runtime.apiserver import Core

pytestmark = pytest.mark.e2e

JSON = dict[str, Any]
BASE = "/api/v1/namespaces/modelmesh-serving"
ISVCS = "/apis/serving.kserve.io/v1beta1/namespaces/modelmesh-serving/inferenceservices"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


def _create(core: Core, name: str = "a") -> None:
    core.create(
        core.kind(CONFIG_MAP),
        {"metadata": {"name": name, "namespace": "modelmesh-serving"}, "data": {"k": "v"}},
    )


async def _get(http: aiohttp.ClientSession, path: str, accept: str = "application/json") -> JSON:
    async with http.get(path, headers={"Accept": accept}) as response:
        assert response.status == 200, await response.text()
        found: JSON = await response.json(content_type=None)
        return found


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz", "/version", "/"])
async def test_health_and_version(http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(path) as response:
        assert response.status == 200


async def test_discovery_lists_groups_and_resources(http: aiohttp.ClientSession) -> None:
    assert (await _get(http, "/api"))["versions"] == ["v1"]
    groups = {group["name"]: group for group in (await _get(http, "/apis"))["groups"]}
    versions = [version["version"] for version in groups["serving.kserve.io"]["versions"]]
    assert versions == ["v1beta1", "v1alpha1"]
    assert await _get(http, "/apis/apps") == {"kind": "APIGroup", "apiVersion": "v1", **groups["apps"]}
    resources = {
        entry["name"]: entry for entry in (await _get(http, "/apis/serving.kserve.io/v1beta1"))["resources"]
    }
    assert resources["inferenceservices"]["shortNames"] == ["isvc"]
    assert "inferenceservices/status" in resources
    core_resources = {entry["name"]: entry for entry in (await _get(http, "/api/v1"))["resources"]}
    assert core_resources["namespaces"]["namespaced"] is False
    assert core_resources["pods/log"]["verbs"] == ["get"]


async def test_aggregated_discovery_agrees_with_the_plain_one(http: aiohttp.ClientSession) -> None:
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    document = await _get(http, "/apis", accept)
    assert document["kind"] == "APIGroupDiscoveryList"
    plain = {group["name"] for group in (await _get(http, "/apis"))["groups"]}
    assert {item["metadata"]["name"] for item in document["items"]} == plain
    only_beta = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
    assert (await _get(http, "/apis", only_beta))["kind"] == "APIGroupList"


async def test_openapi_names_field_validation_and_the_schema(http: aiohttp.ClientSession) -> None:
    index = (await _get(http, "/openapi/v3"))["paths"]
    document = await _get(http, index["apis/serving.kserve.io/v1beta1"]["serverRelativeURL"])
    path = "/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices/{name}"
    parameters = {parameter["name"] for parameter in document["paths"][path]["patch"]["parameters"]}
    assert "fieldValidation" in parameters
    schema = document["components"]["schemas"]["io.kserve.serving.v1beta1.InferenceService"]
    assert "predictor" in schema["properties"]["spec"]["properties"]
    second = await _get(http, "/openapi/v2")
    assert "io.kserve.serving.v1beta1.InferenceService" in second["definitions"]


async def test_views_of_a_list(core: Core, http: aiohttp.ClientSession) -> None:
    _create(core)
    table = await _get(http, f"{BASE}/configmaps", TABLE)
    assert table["kind"] == "Table"
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert table["rows"][0]["cells"][:2] == ["a", 1]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    metadata = await _get(http, f"{BASE}/configmaps", partial)
    assert metadata["kind"] == "PartialObjectMetadataList"
    assert "data" not in metadata["items"][0]
    full = await _get(http, f"{BASE}/configmaps", "application/vnd.kubernetes.protobuf,application/json")
    assert (full["kind"], full["items"][0]["data"]) == ("ConfigMapList", {"k": "v"})


async def test_an_answer_nobody_can_give_is_refused(http: aiohttp.ClientSession) -> None:
    async with http.get(
        f"{BASE}/configmaps", headers={"Accept": "application/vnd.kubernetes.protobuf"}
    ) as response:
        assert (response.status, (await response.json())["reason"]) == (406, "NotAcceptable")


@pytest.mark.parametrize(
    ("body", "content_type", "status", "message"),
    [
        ("{", "application/json", 400, "json parse error"),
        ("a: [", "application/yaml", 400, "error decoding YAML"),
        ("[]", "application/json", 400, "no object of kind ConfigMap"),
        ("[" * 100_000, "application/json", 400, "json parse error"),
        ("<a/>", "application/xml", 415, "unknown format"),
        ("rubbish", "application/vnd.kubernetes.protobuf", 400, "envelope"),
        ('{"kind":"Secret","metadata":{"name":"a"}}', "application/json", 400, "Kind=Secret"),
    ],
)
async def test_a_body_that_cannot_be_read_says_why(
    http: aiohttp.ClientSession,
    body: str,
    content_type: str,
    status: int,
    message: str,
) -> None:
    async with http.post(f"{BASE}/configmaps", data=body, headers={"Content-Type": content_type}) as response:
        answer = await response.json()
        assert (response.status, answer["kind"], answer["code"]) == (status, "Status", status)
        assert message in answer["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/apis/none.example.com", 404),
        ("GET", "/apis/apps/v9", 404),
        ("GET", "/apis/apps/v1/namespaces/x/widgets", 404),
        ("GET", "/apis/apps/v1/deployments/a", 404),
        ("GET", f"{BASE}/configmaps/a/status", 404),
        ("POST", f"{BASE}/configmaps/a", 405),
        ("POST", "/version", 405),
        ("GET", f"{BASE}/configmaps?limit=x", 400),
        ("GET", f"{BASE}/configmaps?fieldSelector=data.k%3Dv", 400),
    ],
)
async def test_every_refusal_is_a_status(
    http: aiohttp.ClientSession, method: str, path: str, status: int
) -> None:
    async with http.request(method, path) as response:
        assert response.status == status
        assert (await response.json())["kind"] == "Status"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gracePeriodSeconds": "soon"}, "gracePeriodSeconds: 'soon' is not a number"),
        ({"propagationPolicy": "Everything"}, "propagationPolicy: 'Everything' is not one of"),
        ({"preconditions": "none"}, "preconditions: an object"),
    ],
)
async def test_options_of_a_deletion_are_checked(
    core: Core, http: aiohttp.ClientSession, options: JSON, message: str
) -> None:
    _create(core)
    async with http.delete(f"{BASE}/configmaps/a", json=options) as response:
        assert response.status == 400
        assert message in (await response.json())["message"]
    assert await _get(http, f"{BASE}/configmaps/a")


async def test_applied_metadata_must_be_an_object(http: aiohttp.ClientSession) -> None:
    url, headers = f"{BASE}/configmaps/a?fieldManager=m", {"Content-Type": "application/apply-patch+yaml"}
    async with http.patch(url, data="metadata: 5", headers=headers) as response:
        assert (response.status, (await response.json())["reason"]) == (400, "BadRequest")


async def test_unknown_fields_by_query_parameter(http: aiohttp.ClientSession, isvc: JSON) -> None:
    isvc["spec"]["predictor"]["model"]["modelFromat"] = {}
    async with http.post(f"{ISVCS}?fieldValidation=Strict", json=isvc) as response:
        assert response.status == 400
        assert 'unknown field "spec.predictor.model.modelFromat"' in (await response.json())["message"]
    async with http.post(f"{ISVCS}?fieldValidation=Warn&dryRun=All", json=isvc) as response:
        assert response.status == 201
        assert response.headers["Warning"] == '299 - "unknown field \\"spec.predictor.model.modelFromat\\""'
    async with http.post(f"{ISVCS}?fieldValidation=Perhaps", json=isvc) as response:
        assert response.status == 400
    async with http.get(ISVCS) as response:
        assert not (await response.json())["items"]


async def test_watches_stream_lines_also_as_tables(core: Core, http: aiohttp.ClientSession) -> None:
    version = (await _get(http, f"{BASE}/configmaps"))["metadata"]["resourceVersion"]
    path = f"{BASE}/configmaps?watch=true&resourceVersion={version}"
    async with (
        asyncio.timeout(10),
        http.get(path) as plain,
        http.get(path, headers={"Accept": TABLE}) as table,
    ):
        _create(core, "a")
        _create(core, "b")
        events = [json.loads(await plain.content.readline()) for _ in range(2)]
        assert [(event["type"], event["object"]["metadata"]["name"]) for event in events] == [
            ("ADDED", "a"),
            ("ADDED", "b"),
        ]
        tables = [json.loads(await table.content.readline())["object"] for _ in range(2)]
        assert [len(entry["columnDefinitions"]) for entry in tables] == [3, 0]
        assert [entry["rows"][0]["cells"][0] for entry in tables] == ["a", "b"]


async def test_a_watch_from_an_old_version_ends_with_an_error_event(http: aiohttp.ClientSession) -> None:
    async with (
        asyncio.timeout(10),
        http.get(f"{BASE}/configmaps?watch=1&resourceVersion=99999999") as response,
    ):
        event = json.loads(await response.content.readline())
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
        assert await response.content.readline() == b""


async def test_a_client_that_leaves_frees_its_watch(core: Core, http: aiohttp.ClientSession) -> None:
    subscriptions = core._store._subscriptions["", "configmaps"]
    async with asyncio.timeout(10):
        async with http.get(f"{BASE}/configmaps?watch=true"):
            while not subscriptions:  # noqa: ASYNC110 -- the server's state has no event to wait for
                await asyncio.sleep(0.01)
        while subscriptions:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_stopping_ends_open_watches(http: aiohttp.ClientSession, server: LocalApiServer) -> None:
    async with asyncio.timeout(10), http.get(f"{BASE}/configmaps?watch=true") as response:
        await server.stop()
        assert await response.content.read() == b""


async def test_collections_can_be_deleted(core: Core, http: aiohttp.ClientSession) -> None:
    _create(core, "a")
    _create(core, "b")
    async with http.delete(f"{BASE}/configmaps?fieldSelector=metadata.name%3Da") as response:
        assert response.status == 200
    assert [item["metadata"]["name"] for item in (await _get(http, f"{BASE}/configmaps"))["items"]] == ["b"]


async def test_pod_logs(core: Core, http: aiohttp.ClientSession) -> None:
    containers = [{"name": "mm", "image": "i"}, {"name": "adapter", "image": "i"}]
    pod = {"metadata": {"name": "p", "namespace": "modelmesh-serving"}, "spec": {"containers": containers}}
    core.create(core.kind(POD), pod)
    async with http.get(f"{BASE}/pods/p/log?container=mm&tailLines=1") as response:
        assert (response.content_type, await response.text()) == ("text/plain", "mm line 2\n")
    for query, status, message in (
        ("", 400, "a container name must be specified for pod p"),
        ("container=x", 400, "container x is not valid for pod p"),
        ("container=mm&tailLines=x", 400, "tailLines"),
        ("container=mm&previous=true", 404, "previous terminated container"),
    ):
        async with http.get(f"{BASE}/pods/p/log?{query}") as response:
            assert response.status == status
            assert message in (await response.json())["message"]


async def test_a_taken_port_is_named(core: Core, server: LocalApiServer) -> None:
    second = LocalApiServer(core, port=server.port, pod_logs=None)  # type: ignore[arg-type]
    with pytest.raises(AddressInUse, match=f"127.0.0.1:{server.port}: .*Stop what listens there"):
        await second.start()

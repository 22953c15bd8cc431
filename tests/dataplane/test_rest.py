"""The V2 protocol over REST."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING

import grpc
import pytest
from modelmesh_dataplane import CopyRoute, Miss

from tests.dataplane.harness import ALIAS, MODEL, Instance, Start, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

INFER = f"/v2/models/{ALIAS}/infer"
DIGIT = [
    *[0, 0, 1, 11, 14, 15, 3, 0, 0, 1, 13, 16, 12, 16, 8, 0, 0, 8, 16, 4, 6, 16, 5, 0],
    *[0, 5, 15, 11, 13, 14, 0, 0, 0, 0, 2, 12, 16, 13, 0, 0, 0, 0, 0, 13, 16, 16, 6, 0],
    *[0, 0, 0, 16, 16, 16, 7, 0, 0, 0, 0, 11, 13, 12, 1, 0],
]
TENSOR = {"name": "predict", "shape": [1, 64], "datatype": "FP32", "data": DIGIT}


def body(request_id: str = "", **tensor: object) -> dict[str, object]:
    request: dict[str, object] = {"inputs": [{**TENSOR, **tensor}]}
    return {"id": request_id, **request} if request_id else request


async def test_a_digit_is_answered_compactly(instance: Instance) -> None:
    response = await instance.rest.post(INFER, json=body())
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.text.startswith(f'{{"model_name":"{MODEL}","parameters":{{')
    assert response.text.endswith('"outputs":[{"name":"predict","datatype":"INT64","shape":[1],"data":[8]}]}')


async def test_the_tensor_reaches_the_server_whatever_its_nesting(instance: Instance) -> None:
    sizes = set()
    for data in [DIGIT, [DIGIT], [float(value) for value in DIGIT]]:
        response = await instance.rest.post(INFER, json=body(data=data))
        sizes.add(response.json()["parameters"]["bytes"])
    assert len(sizes) == 1


async def test_the_content_type_that_curl_sends_by_default_is_accepted(instance: Instance) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    response = await instance.rest.post(INFER, content=json.dumps(body()), headers=form)
    assert response.json()["outputs"][0]["data"] == [8]


async def test_the_path_with_a_version_carries_the_body_too(instance: Instance) -> None:
    response = await instance.rest.post(f"/v2/models/{ALIAS}/versions/1/infer", json=body("x"))
    assert response.json()["id"] == "x"
    assert response.json()["outputs"][0]["data"] == [8]


async def test_strings_go_and_come_as_bytes(instance: Instance) -> None:
    text = 'a "b" <c> é 😀 \n'
    tensor = {"datatype": "BYTES", "shape": [2], "data": [text, ""]}
    [output] = (await instance.rest.post(INFER, json=body(**tensor))).json()["outputs"]
    assert output["parameters"] == {"content_type": "base64"}
    assert [base64.b64decode(item).decode() for item in output["data"]] == [text, ""]
    encoded = base64.b64encode(b"\x00\xff").decode()
    parameters = {"content_type": "base64"}
    tensor = {"datatype": "BYTES", "shape": [1], "data": [encoded], "parameters": parameters}
    [output] = (await instance.rest.post(INFER, json=body(**tensor))).json()["outputs"]
    assert output["data"] == [encoded]


async def test_raw_and_typed_answers_are_numbers(instance: Instance) -> None:
    response = await instance.rest.post(INFER, json=body("raw:UINT8:0007ff"))
    assert response.json()["outputs"][0]["data"] == [0, 7, 255]
    response = await instance.rest.post(INFER, json=body("typed"))
    data = {output["name"]: output["data"] for output in response.json()["outputs"]}
    assert data == {
        "b": [True, False],
        "u": [0, 255],
        "f": [0.1, 8],
        "s": [base64.b64encode(b"a<b").decode()],
    }


async def test_metadata_has_numbers_in_shapes(instance: Instance) -> None:
    response = await instance.rest.get(f"/v2/models/{ALIAS}")
    assert response.text == (
        f'{{"name":"{MODEL}","versions":["1"],"platform":"fake",'
        '"inputs":[{"name":"predict","datatype":"FP32","shape":[-1,64]}]}'
    )


async def test_health_and_readiness(instance: Instance) -> None:
    get = instance.rest.get
    assert (await get("/v2/health/live")).status_code == 200
    assert (await get("/v2/health/ready")).status_code == 503
    instance.dataplane.set_ready(True)
    assert (await get("/v2/health/ready")).status_code == 200
    assert (await get("/v2")).json()["name"] == "modelmesh"
    ready = await get(f"/v2/models/{ALIAS}/ready")
    assert (ready.status_code, ready.json()) == (200, {"name": ALIAS, "ready": True})
    assert (await get("/v2/models/asleep/ready")).status_code == 503
    assert (await get("/v2/models/unknown/ready")).status_code == 404


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("INVALID_ARGUMENT", 400),
        ("FAILED_PRECONDITION", 400),
        ("UNAUTHENTICATED", 401),
        ("PERMISSION_DENIED", 403),
        ("ALREADY_EXISTS", 409),
        ("INTERNAL", 500),
        ("UNKNOWN", 500),
        ("UNIMPLEMENTED", 501),
        ("DEADLINE_EXCEEDED", 504),
    ],
)
async def test_the_servers_errors_keep_their_text(instance: Instance, code: str, expected: int) -> None:
    response = await instance.rest.post(INFER, json=body(f'error:{code}:cannot reshape "a" é'))
    assert response.status_code == expected
    assert response.json() == {"error": 'cannot reshape "a" é'}


@pytest.mark.parametrize(
    ("code", "expected", "retry_after"),
    [
        (grpc.StatusCode.NOT_FOUND, 404, None),
        (grpc.StatusCode.FAILED_PRECONDITION, 500, None),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "2"),
        (grpc.StatusCode.UNAVAILABLE, 503, None),
    ],
)
async def test_the_policys_errors_have_their_codes(
    start: Start, code: grpc.StatusCode, expected: int, retry_after: str | None
) -> None:
    def refuse(_: Instance, miss: Miss) -> None:
        miss.fail(code.value[0], "why", 1500 if retry_after else None)

    instance = await start(refuse)
    response = await instance.rest.post(INFER, json=body())
    assert (response.status_code, response.json()) == (expected, {"error": "why"})
    assert response.headers.get("retry-after") == retry_after


async def test_what_is_wrong_with_the_request_is_said(instance: Instance) -> None:
    post = instance.rest.post
    for content, text in [
        (b"", "no body"),
        (b"{", "line 1 column 1"),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[NaN]}]}', "NaN"),
        (b'{"inputs":[{"name":"x","datatype":"FP16","shape":[1],"data":[1]}]}', "FP16"),
        (b'{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[300]}]}', "300"),
    ]:
        response = await post(INFER, content=content)
        assert response.status_code == 400
        assert text in response.json()["error"]


async def test_a_method_that_is_not_allowed_says_which_is(instance: Instance) -> None:
    response = await instance.rest.get(INFER)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert "POST" in response.json()["error"]
    response = await instance.rest.delete(f"/v2/models/{ALIAS}")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")


async def test_an_unknown_path_is_not_found(instance: Instance) -> None:
    response = await instance.rest.get("/v1/models/a")
    assert (response.status_code, "/v1/models/a" in response.json()["error"]) == (404, True)


@pytest.mark.parametrize("announced", [True, False])
async def test_an_oversized_body_is_refused(start: Start, *, announced: bool) -> None:
    instance = await start(max_message_bytes=10_000)
    instance.route_local()

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b" " * 1000

    content = b" " * 50_000 if announced else chunks()
    response = await instance.rest.post(INFER, content=content)
    assert response.status_code == 413
    assert "10000 bytes" in response.json()["error"]


async def test_a_timeout_is_kept(instance: Instance) -> None:
    response = await instance.rest.post(INFER, json=body("hang:rest"), headers={"grpc-timeout": "200m"})
    assert response.status_code == 504
    response = await instance.rest.post(INFER, json=body(), headers={"grpc-timeout": "soon"})
    assert response.status_code == 400


async def test_a_client_that_goes_away_ends_the_call(instance: Instance) -> None:
    call = asyncio.ensure_future(instance.rest.post(INFER, json=body("hang:rest-cancel")))

    async def arrived() -> bool:
        return instance.dataplane.in_flight(MODEL) == 1

    async def ended() -> bool:
        return instance.dataplane.in_flight(MODEL) == 0

    await until(arrived)
    call.cancel()
    await until(ended)


async def test_headers_become_metadata(instance: Instance) -> None:
    headers = {"grpc-metadata-x-mine": "1", "authorization": "Bearer t", "x-other": "2"}
    parameters = (await instance.rest.post(INFER, json=body(), headers=headers)).json()["parameters"]
    assert parameters["header.x-mine"] == "1"
    assert parameters["header.authorization"] == "Bearer t"
    assert "header.x-other" not in parameters


async def test_rest_takes_the_same_way_as_grpc(start: Start) -> None:
    there = await start()
    there.dataplane.update(1, {MODEL: [CopyRoute("peer", None)]}, {})
    here = await start()
    here.route(CopyRoute("peer", there.addresses["peer"]))
    assert (await here.rest.post(INFER, json=body())).json()["model_name"] == MODEL
    text = here.dataplane.metrics()
    assert 'modelmesh_api_request_milliseconds_count{method="ModelInfer",code="OK"} 1\n' in text

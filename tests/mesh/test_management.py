"""The management API answers with the codes and texts that clients know."""

from typing import Any

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError

from api.proto.kfs_inference_v2_pb2 import ModelReadyRequest
from api.proto.kfs_inference_v2_pb2_grpc import GRPCInferenceServiceStub
from api.proto.model_mesh_pb2 import (
    EnsureLoadedRequest,
    GetStatusRequest,
    ModelInfo,
    ModelStatusInfo,
    RegisterModelRequest,
    SetVModelRequest,
    UnregisterModelRequest,
)
from tests.mesh.conftest import Instance, Mesh
from tests.store.waiting import until


def registration(
    name: str = "m", path: str = "SIZE_1000_0_0", type_: str = "t", **fields: Any
) -> RegisterModelRequest:
    return RegisterModelRequest(modelId=name, modelInfo=ModelInfo(type=type_, path=path), **fields)


async def refused(call: Any) -> tuple[StatusCode, str]:
    with pytest.raises(AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_registering_again_is_success_only_for_the_same_model(mesh: Mesh) -> None:
    api = (await mesh.add()).api
    assert (await api.registerModel(registration())).status == ModelStatusInfo.NOT_LOADED
    assert (await api.registerModel(registration())).status == ModelStatusInfo.NOT_LOADED
    assert (await refused(api.registerModel(registration(path="other"))))[0] is StatusCode.ALREADY_EXISTS


async def test_incomplete_requests_say_what_is_missing(mesh: Mesh) -> None:
    api = (await mesh.add()).api
    missing_id = (StatusCode.INVALID_ARGUMENT, "must provide non-empty modelId")
    assert await refused(api.registerModel(registration(name=""))) == missing_id
    assert await refused(api.getModelStatus(GetStatusRequest())) == missing_id
    assert await refused(api.ensureLoaded(EnsureLoadedRequest())) == missing_id
    assert await refused(api.unregisterModel(UnregisterModelRequest())) == missing_id
    assert (await refused(api.registerModel(registration(type_=""))))[0] is StatusCode.INVALID_ARGUMENT


async def test_unknown_models(mesh: Mesh) -> None:
    api = (await mesh.add()).api
    assert (await api.getModelStatus(GetStatusRequest(modelId="x"))) == ModelStatusInfo()
    assert await refused(api.ensureLoaded(EnsureLoadedRequest(modelId="x"))) == (
        StatusCode.NOT_FOUND,
        "model not found: x",
    )
    await api.unregisterModel(UnregisterModelRequest(modelId="x"))


async def test_load_now(mesh: Mesh) -> None:
    api = (await mesh.add()).api
    info = await api.registerModel(registration(path="SIZE_1000_50_0", loadNow=True))
    assert info.status == ModelStatusInfo.LOADING
    info = await api.ensureLoaded(EnsureLoadedRequest(modelId="m", sync=True))
    assert info.status == ModelStatusInfo.LOADED
    info = await api.registerModel(registration("bad", "FAIL_no", loadNow=True, sync=True))
    assert (info.status, list(info.errors)) == (ModelStatusInfo.LOADING_FAILED, ["FAILED_PRECONDITION: no"])


async def test_a_new_model_does_not_displace_what_was_used_in_the_last_hour(mesh: Mesh) -> None:
    one = await mesh.add()
    await one.api.registerModel(registration("used", "SIZE_9000_0_0"))
    await one.bytes.request("used")
    info = await one.api.registerModel(registration("new", "SIZE_9000_0_0", loadNow=True, sync=True))
    assert info.status == ModelStatusInfo.NOT_LOADED
    assert one.runtime.unloads == []
    mesh.clock.ahead_ms += 2 * 3_600_000
    info = await one.api.ensureLoaded(EnsureLoadedRequest(modelId="new", sync=True))
    assert info.status == ModelStatusInfo.LOADED


async def test_health_is_that_of_the_instance(mesh: Mesh) -> None:
    one = await mesh.add()

    async def health() -> bytes:
        check = one.channel.unary_unary("/grpc.health.v1.Health/Check")
        answer: bytes = await check(b"")
        return answer

    assert await health() == b"\x08\x01"
    await one.node.leave()
    assert await health() == b"\x08\x02"


async def is_ready(instance: Instance, name: str) -> bool:
    stub: Any = GRPCInferenceServiceStub(instance.channel)
    return bool((await stub.ModelReady(ModelReadyRequest(name=name))).ready)


async def test_model_ready(mesh: Mesh) -> None:
    one = await mesh.add()
    assert (await refused(is_ready(one, "x")))[0] is StatusCode.NOT_FOUND
    await one.api.registerModel(registration("m", "SIZE_9000_0_0"))
    assert not await is_ready(one, "m"), "it was never loaded, so nobody knows whether it can be"
    await until(lambda: is_ready(one, "m"))
    await one.api.registerModel(registration("n", "SIZE_9000_0_0"))
    await one.bytes.request("n")
    await until(lambda: one.runtime.unloads == ["m"])
    assert await is_ready(one, "m"), "it went to make room; a request has it loaded again"
    await one.api.registerModel(registration("bad", "FAIL_no", loadNow=True, sync=True))
    assert not await is_ready(one, "bad")


async def test_what_can_be_tried_again_says_when(mesh: Mesh) -> None:
    one = await mesh.add()
    mesh.store.set_available(False)
    with pytest.raises(AioRpcError) as caught:
        await one.api.registerModel(registration())
    assert caught.value.code() is StatusCode.UNAVAILABLE
    assert ("grpc-retry-pushback-ms", "1000") in tuple(caught.value.trailing_metadata() or ())
    mesh.store.set_available(True)


@pytest.mark.parametrize(
    ("service", "register", "unregister"),
    [
        ("mmesh.ModelMesh", "addModel", "deleteModel"),
        ("com.ibm.watson.tas.proto.TasRuntime", "addModel", "deleteModel"),
        ("com.ibm.watson.tas.proto.TasRuntime", "registerModel", "unregisterModel"),
    ],
)
async def test_old_names_of_the_api_are_served(
    mesh: Mesh, service: str, register: str, unregister: str
) -> None:
    one = await mesh.add()

    async def call(method: str, request: Any) -> bytes:
        stub = one.channel.unary_unary(f"/{service}/{method}")
        answer: bytes = await stub(request.SerializeToString())
        return answer

    info = ModelStatusInfo.FromString(await call(register, registration(loadNow=True, sync=True)))
    assert info.status == ModelStatusInfo.LOADED
    if service != "mmesh.ModelMesh":
        status = await call("getModelStatus", GetStatusRequest(modelId="m"))
        assert ModelStatusInfo.FromString(status).status == ModelStatusInfo.LOADED
    await call(unregister, UnregisterModelRequest(modelId="m"))
    assert (await one.api.getModelStatus(GetStatusRequest(modelId="m"))) == ModelStatusInfo()


@pytest.mark.parametrize("name", ["***LOGCACHE***", "***GETSTATE***"])
async def test_names_that_had_the_original_tell_its_state_are_names_like_others(
    mesh: Mesh, name: str
) -> None:
    api = (await mesh.add()).api
    assert (await api.getModelStatus(GetStatusRequest(modelId=name))) == ModelStatusInfo()
    assert (await api.registerModel(registration(name))).status == ModelStatusInfo.NOT_LOADED


async def test_last_used_times_follow_the_rules(mesh: Mesh) -> None:
    one = await mesh.add()

    async def used(name: str, **fields: Any) -> int:
        await one.api.registerModel(registration(name, **fields))
        record = one.node.registry.peek(name)
        assert record is not None
        return (record.last_used - mesh.clock() + 500) // 1000

    now, hour = mesh.clock(), 3_600
    assert await used("default") == -6 * hour
    assert await used("now", loadNow=True) == -1 * hour
    assert await used("given", lastUsedTime=now - 60_000) == -60
    assert await used("future", lastUsedTime=now + 60_000) == 0
    assert await used("default", lastUsedTime=now - 5 * 3_600_000 - 1_000) == -6 * hour, "not an hour newer"
    assert await used("default", lastUsedTime=now - 60_000) == -60
    assert await used("default", lastUsedTime=now - 4 * 3_600_000) == -60, "never back"


async def test_a_later_wish_for_a_model_makes_an_earlier_one_succeed(mesh: Mesh) -> None:
    """The load that was asked for first counts as an hour old, and everything here is younger."""
    one = await mesh.add()
    await one.api.registerModel(registration("used", "SIZE_9000_0_0"))
    await one.bytes.request("used")
    ensure, last_uses = one.node.ensurer.ensure, []

    async def ensure_while_another_asks(model_id: str, *, last_used: int, urgent: bool) -> None:
        last_uses.append(last_used)
        if len(last_uses) == 1:
            await one.api.ensureLoaded(EnsureLoadedRequest(modelId=model_id))
        await ensure(model_id, last_used=last_used, urgent=urgent)

    one.node.ensurer.ensure = ensure_while_another_asks  # type: ignore[assignment,method-assign]
    info = await one.api.registerModel(registration("new", "SIZE_9000_0_0", loadNow=True, sync=True))
    assert info.status == ModelStatusInfo.LOADED
    assert len(last_uses) == 2


@pytest.mark.parametrize(
    ("field", "most"), [("modelId", 1_024), ("type", 1_024), ("path", 8_192), ("key", 65_536)]
)
async def test_a_model_that_is_too_long_to_register_is_refused_with_the_limit(
    mesh: Mesh, field: str, most: int
) -> None:
    api = (await mesh.add()).api
    fields = {"modelId": "m", "type": "t", "path": "p", "key": "k"}

    def request(text: str) -> RegisterModelRequest:
        given = fields | {field: text}
        return RegisterModelRequest(modelId=given.pop("modelId"), modelInfo=ModelInfo(**given))

    assert await api.registerModel(request("x" * most))
    assert await refused(api.registerModel(request("é" * (most // 2) + "x"))) == (
        StatusCode.INVALID_ARGUMENT,
        f"{field} has {most + 1} bytes: at most {most} are possible",
    )


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (SetVModelRequest(vModelId="v" * 1_025, targetModelId="m"), "vModelId has 1025 bytes"),
        (SetVModelRequest(vModelId="v", targetModelId="m" * 1_025), "targetModelId has 1025 bytes"),
        (SetVModelRequest(vModelId="v", targetModelId="m", owner="o" * 1_025), "owner has 1025 bytes"),
        (
            SetVModelRequest(
                vModelId="v", targetModelId="m", modelInfo=ModelInfo(type="t", key="k" * 65_537)
            ),
            "key has 65537 bytes",
        ),
    ],
)
async def test_a_vmodel_that_is_too_long_is_refused_with_the_limit(
    mesh: Mesh, request_: SetVModelRequest, text: str
) -> None:
    code, details = await refused((await mesh.add()).api.setVModel(request_))
    assert code is StatusCode.INVALID_ARGUMENT
    assert text in details

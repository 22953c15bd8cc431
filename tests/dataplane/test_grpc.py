"""gRPC through the dataplane to a real server: what reaches the model server, and what comes back."""

import asyncio

import grpc
import pytest
from modelmesh_dataplane import CopyRoute

from api.proto import kfs_inference_v2_pb2 as v2
from api.proto import model_mesh_pb2 as mmesh
from api.proto import model_mesh_pb2_grpc as mmesh_grpc
from tests.dataplane.harness import ALIAS, MODEL, V2_METHODS, Instance, Start, failing, until

INFER = "/inference.GRPCInferenceService/ModelInfer"
MIB = 1 << 20


async def test_the_alias_in_the_message_becomes_the_concrete_id(instance: Instance) -> None:
    response = await instance.infer()
    assert response.model_name == MODEL
    assert response.outputs[0].contents.int64_contents == [8]
    assert response.parameters["header.mm-model-id"].string_param == MODEL
    assert response.parameters["header.mm-model-id-bin"].string_param == MODEL
    assert instance.misses == []


async def test_the_rest_of_the_message_arrives_as_it_was_sent(instance: Instance) -> None:
    request = v2.ModelInferRequest(model_name=ALIAS, id="x")
    tensor = request.inputs.add(name="in", datatype="BYTES", shape=[2])
    tensor.contents.bytes_contents.extend([b"\x00\xff" * 200_000, b"end"])
    response = await instance.stub.ModelInfer(request)
    assert response.outputs[0].contents.bytes_contents == tensor.contents.bytes_contents


async def test_a_model_can_be_named_by_its_own_id_in_headers(instance: Instance) -> None:
    for header in [
        ("mm-model-id", MODEL),
        ("mm-model-id-bin", MODEL.encode()),
        ("tas-model-id", MODEL),
        ("mm-vmodel-id", ALIAS),
        ("mm-vmodel-id-bin", ALIAS.encode()),
    ]:
        response = await instance.infer("", metadata=[header])
        assert response.model_name == MODEL


async def test_client_metadata_passes_and_mesh_metadata_does_not(instance: Instance) -> None:
    metadata = [("x-mine", "1"), ("mm-balanced", "true"), ("x-bin", b"\x01\x02")]
    call = instance.stub.ModelInfer(v2.ModelInferRequest(model_name=ALIAS), metadata=metadata)
    parameters = (await call).parameters
    assert parameters["header.x-mine"].string_param == "1"
    assert parameters["header.x-bin"].string_param == "\x01\x02"
    assert "header.mm-balanced" not in parameters
    assert ("x-served-by", "fake") in tuple(await call.initial_metadata())


async def test_the_servers_error_reaches_the_client_as_it_is(instance: Instance) -> None:
    call = instance.stub.ModelInfer(
        v2.ModelInferRequest(model_name=ALIAS, id="error:INVALID_ARGUMENT:größer als [1,64] & 100 %")
    )
    async with failing(grpc.StatusCode.INVALID_ARGUMENT, "größer als [1,64] & 100 %"):
        await call
    assert ("x-detail", "why") in tuple(await call.trailing_metadata())
    assert instance.misses == []


async def test_the_deadline_travels_to_the_server_and_ends_the_call(instance: Instance) -> None:
    response = await instance.infer(timeout=20)
    assert 10_000 < response.parameters["left_ms"].int64_param <= 20_000
    async with failing(grpc.StatusCode.DEADLINE_EXCEEDED):
        await instance.infer(request_id="hang:deadline", timeout=0.2)


async def test_a_cancelled_call_is_cancelled_at_the_server(instance: Instance) -> None:
    call = instance.stub.ModelInfer(v2.ModelInferRequest(model_name=ALIAS, id="hang:cancel"))

    async def arrived() -> bool:
        return instance.dataplane.in_flight(MODEL) == 1

    async def ended() -> bool:
        asked = await instance.infer(request_id="cancelled:cancel")
        return asked.parameters["cancelled"].bool_param and instance.dataplane.in_flight(MODEL) == 0

    await until(arrived)
    call.cancel()
    await until(ended)
    assert 'code="CANCELLED"' in instance.dataplane.metrics()


async def test_requests_on_the_local_copy_are_counted(instance: Instance) -> None:
    for _ in range(3):
        await instance.infer()
    [(model, requests, last_used_ms)] = instance.dataplane.usage()
    assert (model, requests) == (MODEL, 3)
    assert last_used_ms > 1_700_000_000_000
    assert instance.dataplane.usage() == []


async def test_a_message_without_a_name_or_with_an_unreadable_one_is_refused(instance: Instance) -> None:
    call = instance.channel.unary_unary(INFER)
    async with failing(grpc.StatusCode.INVALID_ARGUMENT, "must include mm-model-id header"):
        await call(b"")
    async with failing(grpc.StatusCode.INVALID_ARGUMENT, "malformed"):
        await call(b"\x0a\x7fabc")
    async with failing(grpc.StatusCode.INVALID_ARGUMENT, "must not be empty"):
        await call(b"\x0a\x00")


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_a_compressed_message_is_understood(instance: Instance, compression: grpc.Compression) -> None:
    request = v2.ModelInferRequest(model_name=ALIAS)
    request.inputs.add(name="in", datatype="BYTES").contents.bytes_contents.append(b"a" * 1_000_000)
    response = await instance.stub.ModelInfer(request, compression=compression)
    assert response.model_name == MODEL
    assert response.outputs[0].contents.bytes_contents == [b"a" * 1_000_000]


async def test_a_message_that_inflates_beyond_the_limit_is_refused(start: Start) -> None:
    instance = await start(max_message_bytes=MIB)
    instance.route_local()
    request = v2.ModelInferRequest(model_name=ALIAS, id="a" * 2 * MIB)
    async with failing(grpc.StatusCode.RESOURCE_EXHAUSTED, str(MIB)):
        await instance.stub.ModelInfer(request, compression=grpc.Compression.Gzip)


async def test_a_compressed_answer_reaches_clients_of_grpc_and_of_rest(instance: Instance) -> None:
    assert len((await instance.infer(request_id="compressed")).parameters["padding"].string_param) == 10_000
    body = {"id": "compressed", "inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [1]}]}
    answer = (await instance.rest.post(f"/v2/models/{ALIAS}/infer", json=body)).json()
    assert answer["parameters"]["padding"] == "a" * 10_000


async def test_a_server_that_compresses_unasked_is_believed_that_it_has_the_model(start: Start) -> None:
    instance = await start()
    instance.dataplane.update(1, {"zipped": [CopyRoute("self", None)]}, {"zip": [("zipped", 1)]})
    text = "Model zipped with version 9 not found"
    async with failing(grpc.StatusCode.NOT_FOUND, text):
        await instance.infer("zip", request_id=f"error:NOT_FOUND:{text}")
    assert instance.misses == []


async def test_an_oversized_request_is_refused(start: Start) -> None:
    instance = await start(max_message_bytes=MIB)
    instance.route_local()
    request = v2.ModelInferRequest(model_name=ALIAS)
    request.inputs.add(name="in", datatype="BYTES").contents.bytes_contents.append(b"a" * MIB)
    async with failing(grpc.StatusCode.RESOURCE_EXHAUSTED, str(MIB)):
        await instance.stub.ModelInfer(request)


async def test_an_oversized_response_is_refused(start: Start) -> None:
    instance = await start(max_message_bytes=MIB)
    instance.route_local()
    async with failing(grpc.StatusCode.RESOURCE_EXHAUSTED, str(MIB)):
        await instance.infer(request_id="raw:BYTES:" + "00" * (MIB // 3))


async def test_clients_that_do_not_read_do_not_stop_the_answers_to_others(instance: Instance) -> None:
    request = v2.ModelInferRequest(model_name=ALIAS, id=f"raw:UINT8:{'00' * MIB}").SerializeToString()
    # Eight answers of 3 MiB, since they have the id too. With a channel each, the calls share nothing but the
    # connection to the model server.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
    channels = [grpc.aio.insecure_channel(instance.addresses["grpc"], options) for _ in range(8)]
    calls = [channel.unary_stream(INFER)(request) for channel in channels]
    async with asyncio.timeout(20):
        for call in calls:
            await call.initial_metadata()
        assert (await instance.infer()).model_name == MODEL
    for channel in channels:
        await channel.close()


async def test_methods_outside_the_lists_are_refused(instance: Instance) -> None:
    call = instance.channel.unary_unary("/other.Service/Method")
    metadata = [("mm-model-id", MODEL)]
    instance.dataplane.set_methods({INFER: [1]}, allow_any=False)
    async with failing(grpc.StatusCode.UNIMPLEMENTED, "not permitted"):
        await call(b"", metadata=metadata)
    instance.dataplane.set_rpcs({INFER: ([1], True)}, allow_other=False)
    async with failing(grpc.StatusCode.UNIMPLEMENTED, "not permitted"):
        await call(b"", metadata=metadata)
    assert (await instance.infer()).model_name == MODEL


async def test_management_calls_go_to_the_policy_and_the_runtimes_do_not_pass(instance: Instance) -> None:
    stub = mmesh_grpc.ModelMeshStub(instance.channel)
    assert (await stub.getModelStatus(mmesh.GetStatusRequest(modelId="m"))).errors == ["m"]
    async with failing(grpc.StatusCode.UNIMPLEMENTED):
        await instance.channel.unary_unary("/mmesh.ModelRuntime/unloadModel")(b"")


async def test_server_health_is_the_instances_own(instance: Instance) -> None:
    stub = instance.stub
    assert (await stub.ServerLive(v2.ServerLiveRequest())).live
    assert not (await stub.ServerReady(v2.ServerReadyRequest())).ready
    instance.dataplane.set_ready(True)
    assert (await stub.ServerReady(v2.ServerReadyRequest())).ready
    assert (await stub.ServerMetadata(v2.ServerMetadataRequest())).name == "modelmesh"


async def test_a_model_is_ready_when_a_copy_is_and_else_the_policy_says(instance: Instance) -> None:
    ready = instance.stub.ModelReady
    assert (await ready(v2.ModelReadyRequest(name=ALIAS))).ready
    assert (await ready(v2.ModelReadyRequest(name=MODEL))).ready
    assert not (await ready(v2.ModelReadyRequest(name="asleep"))).ready
    async with failing(grpc.StatusCode.NOT_FOUND):
        await ready(v2.ModelReadyRequest(name="unknown"))


async def test_an_alias_divides_requests_by_weight(instance: Instance) -> None:
    instance.dataplane.update(
        2,
        {"a": [CopyRoute("self", None)], "b": [CopyRoute("self", None)], "c": [CopyRoute("self", None)]},
        {"split": [("a", 50), ("b", 50), ("c", 0)]},
    )
    seen = {(await instance.infer("split")).model_name for _ in range(60)}
    assert seen == {"a", "b"}


async def test_an_older_generation_changes_nothing(instance: Instance) -> None:
    assert instance.dataplane.update(5, {}, {ALIAS: [("other", 1)], MODEL: None})
    assert not instance.dataplane.update(4, {}, {ALIAS: [(MODEL, 1)]})
    async with failing(grpc.StatusCode.NOT_FOUND):
        await instance.infer()


async def test_a_taken_port_is_named(start: Start, instance: Instance) -> None:
    address = instance.addresses["grpc"]
    with pytest.raises(OSError, match=address) as caught:
        await start(grpc_listen=[address])
    assert caught.value.errno == 98


async def test_measurements_name_method_and_code(instance: Instance) -> None:
    await instance.infer()
    async with failing(grpc.StatusCode.INTERNAL):
        await instance.infer(request_id="error:INTERNAL:no")
    text = instance.dataplane.metrics()
    for name in [
        "api_request_milliseconds",
        "invoke_model_milliseconds",
        "request_size_bytes",
        "response_size_bytes",
    ]:
        for code in ["OK", "INTERNAL"]:
            assert f'modelmesh_{name}_count{{method="ModelInfer",code="{code}"}} 1\n' in text
    assert "modelmesh_in_flight_requests 0\n" in text


async def test_methods_of_one_name_share_one_series(instance: Instance) -> None:
    async with failing(grpc.StatusCode.UNIMPLEMENTED):
        await instance.infer(request_id="error:UNIMPLEMENTED:no")
    async with failing(grpc.StatusCode.UNIMPLEMENTED):
        await instance.channel.unary_unary("/a.B/ModelInfer")(b"", metadata=[("mm-model-id", MODEL)])
    series = [line.rsplit(" ", 1)[0] for line in instance.dataplane.metrics().splitlines()]
    assert len(series) == len(set(series))


async def test_methods_that_clients_make_up_take_no_label_from_real_ones(instance: Instance) -> None:
    instance.dataplane.set_methods(V2_METHODS, allow_any=False)
    for number in range(120):
        async with failing(grpc.StatusCode.UNIMPLEMENTED):
            await instance.channel.unary_unary(f"/a.B/Made{number}")(b"", metadata=[("mm-model-id", MODEL)])
    await instance.infer()
    text = instance.dataplane.metrics()
    assert 'method="Made' not in text
    assert 'modelmesh_api_request_milliseconds_count{method="other",code="UNIMPLEMENTED"} 120\n' in text
    assert 'modelmesh_api_request_milliseconds_count{method="ModelInfer",code="OK"} 1\n' in text

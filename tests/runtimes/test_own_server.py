"""The example's server, beyond the conformance suite: wrong requests, and loads that come to a late end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from api.proto import kfs_inference_v2_pb2 as v2
from api.proto import kfs_inference_v2_pb2_grpc as v2_grpc
from api.proto import model_runtime_pb2 as spi
from api.proto import model_runtime_pb2_grpc as spi_grpc
from tests.runtimes.conftest import EXAMPLES
from tests.store.etcd_server import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXAMPLE = EXAMPLES / "own-server"
WHOLE = str(EXAMPLE / "models" / "linear.json")


@pytest.fixture(scope="module")
def channel() -> Iterator[grpc.Channel]:
    port = free_port()
    environment = os.environ | {"ENDPOINT": f"port:{port}"}
    with subprocess.Popen([sys.executable, str(EXAMPLE / "server.py")], env=environment) as process:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(20)
            yield channel
        process.terminate()


def load(channel: grpc.Channel, model_id: str, path: str = WHOLE) -> Any:
    request = spi.LoadModelRequest(modelId=model_id, modelPath=path)
    return spi_grpc.ModelRuntimeStub(channel).loadModel.future(request, timeout=20)


def infer(channel: grpc.Channel, model: str, shape: list[int], *raw: bytes) -> list[float]:
    request = v2.ModelInferRequest(model_name=model, raw_input_contents=raw)
    tensor = request.inputs.add(name="x", datatype="FP32", shape=shape)
    if not raw:
        tensor.contents.fp32_contents.extend([1, 2, 3])
    answer = v2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=20)
    return list(answer.outputs[0].contents.fp32_contents)


@pytest.mark.parametrize(
    ("shape", "raw", "words"),
    [
        ([1, 3], [b"\0" * 13], "13 bytes"),
        ([1, 3], [b"\0" * 8], "do not fill"),
        ([1, 2], [], "do not fill"),
        ([], [], "do not fill"),
        ([-1, -3], [], "do not fill"),
        ([3, 1], [], "a row has 1 numbers"),
    ],
)
def test_a_wrong_request_is_the_clients_fault(
    channel: grpc.Channel, shape: list[int], raw: list[bytes], words: str
) -> None:
    load(channel, "wrong").result()
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, "wrong", shape, *raw)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in caught.value.details()


def test_the_late_end_of_a_cancelled_load_leaves_a_newer_one_alone(
    channel: grpc.Channel, tmp_path: Path
) -> None:
    slow = tmp_path / "slow.json"
    os.mkfifo(slow)  # read to its end when this test has written it
    first = load(channel, "again", str(slow))
    writer = slow.open("w")  # waits until the server reads
    first.cancel()
    answered = threading.Event()
    unload = spi_grpc.ModelRuntimeStub(channel).unloadModel.future(
        spi.UnloadModelRequest(modelId="again"), timeout=20
    )
    unload.add_done_callback(lambda _: answered.set())
    assert not answered.wait(0.3), "unloadModel answers when the memory is free, and it is in use"
    load(channel, "again").result()
    writer.write('{"weights": [0]}')
    writer.close()
    unload.result()
    assert infer(channel, "again", [1, 3]) == [2.5]

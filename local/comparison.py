"""Random digits, answered by scikit-learn directly and by the served model over both protocols."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from typing import TYPE_CHECKING

import grpc

from api.proto import kfs_inference_v2_pb2 as v2
from api.proto import kfs_inference_v2_pb2_grpc as v2_grpc
from local import environments, samples
from local.errors import SamplesFailedError
from local.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local.home import Home

_TIMEOUT_SECONDS = 30.0


def expected(home: Home, count: int, seed: int) -> tuple[list[list[float]], list[int]]:
    """Return random digits of scikit-learn's data set and what the sample model itself makes of them.

    Raises:
        SamplesFailedError: the script failed.
    """
    environment = environments.locate("mlserver", home.environments)
    model = samples.locate(home.samples, environment) / "sklearn" / "mnist-svm.joblib"
    command = [str(environment / "bin" / "python"), str(samples.PREDICT), str(model), str(count), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise SamplesFailedError(f"predicting with scikit-learn failed: {done.stderr.strip()}")
    answer = json.loads(done.stdout)
    return answer["digits"], answer["labels"]


def ask_grpc(port: int, model: str, digits: Sequence[Sequence[float]]) -> list[int]:
    """Return the model's label of each digit, one `ModelInfer` call each."""
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"{LOOPBACK}:{port}", options) as channel:
        stub = v2_grpc.GRPCInferenceServiceStub(channel)
        labels = []
        for digit in digits:
            request = v2.ModelInferRequest(model_name=model)
            tensor = request.inputs.add(name="predict", shape=[1, len(digit)], datatype="FP32")
            tensor.contents.fp32_contents.extend(digit)
            answer = stub.ModelInfer(request, timeout=_TIMEOUT_SECONDS)
            labels.append(int(answer.outputs[0].contents.int64_contents[0]))
    return labels


def ask_rest(port: int, model: str, digits: Sequence[Sequence[float]]) -> list[int]:
    """Return the model's label of each digit, one `POST /v2/models/NAME/infer` each."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    labels = []
    for digit in digits:
        tensor = {"name": "predict", "shape": [1, len(digit)], "datatype": "FP32", "data": digit}
        request = urllib.request.Request(
            f"http://{LOOPBACK}:{port}/v2/models/{model}/infer",
            data=json.dumps({"inputs": [tensor]}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with direct.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            labels.append(int(json.load(answer)["outputs"][0]["data"][0]))
    return labels

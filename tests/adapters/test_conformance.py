"""Our own adapters keep the contract that we check others by, with real servers behind them."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import TYPE_CHECKING, Any

import obstore
import pytest
from grpc import aio

from adapters.mlserver import MLServerAdapter
from adapters.triton import TritonAdapter
from modelmesh.conformance.checks import Verdict
from modelmesh.conformance.inference import V2_INFER, Inference, v2_request
from modelmesh.conformance.run import ModelUnderTest, Run
from modelmesh.conformance.suite import CHECKS, run_suite
from tests.adapters.triton_models import OBJECTS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

# Loads of a real classifier that take long enough to be cancelled.
MAKE_SLOW_MODEL = """
import pickle, sys
from sklearn.datasets import load_digits
from sklearn.svm import SVC

digits = load_digits()
svm = pickle.dumps(SVC(gamma=0.001).fit(digits.data[:200], digits.target[:200]))

class Slow:
    def __reduce__(self):
        return eval, (f"__import__('time').sleep(0.2) or __import__('pickle').loads({svm!r})",)

open(sys.argv[1], "wb").write(pickle.dumps(Slow()))
"""


# Triton starts a process for each model here; all checks take minutes, by `make test-conformance`.
MOST_TELLING = (
    "cancelled-load-leaves-nothing",
    "infer-not-loaded",
    "purge-before-ready",
    "refusal-explained",
    "session-keeps-models",
)


async def not_passed(
    adapter: Any, server: Any, model: ModelUnderTest, request: Any, chosen: Collection[str] = ()
) -> dict[str, str]:
    """The checks, or of the chosen ones those, that did not pass, each with its verdict and words."""
    checks = [check for check in CHECKS if not chosen or check.name in chosen]
    async with (
        aio.insecure_channel(f"127.0.0.1:{adapter.settings.port}") as channel,
        server.channel() as data,
    ):
        run = Run(channel, model, Inference(data, V2_INFER, request.SerializeToString()))
        results = [result async for result in run_suite(run, checks)]
    return {
        result.check.name: f"{result.verdict.value}: {result.words}"
        for result in results
        if result.verdict is not Verdict.PASSED
    }


def model_at(path: str, broken: str, kind: str) -> ModelUnderTest:
    return ModelUnderTest.of(path, kind, json.dumps({"storage_key": "localMinIO"}), broken)


async def test_the_mlserver_adapter_keeps_the_contract(
    s3: Any,
    mlserver: Any,
    mlserver_environment: Path,
    mlserver_root: Path,
    run_adapter: Callable[..., Any],
    tmp_path: Path,
) -> None:
    python = str(mlserver_environment / "bin" / "python")
    make = [python, "-c", MAKE_SLOW_MODEL, str(tmp_path / "svm")]
    await asyncio.to_thread(subprocess.run, make, check=True)
    obstore.put(s3.store(), "conformance/svm.joblib", (tmp_path / "svm").read_bytes())
    obstore.put(s3.store(), "conformance/broken.joblib", b"this is no pickle")
    digit = {"name": "predict", "datatype": "FP32", "shape": [1, 64], "data": [0.0] * 64}
    model = model_at("conformance/svm.joblib", "conformance/broken.joblib", "sklearn")
    variables = mlserver.adapter_variables(mlserver_root, s3.entry())
    async with run_adapter(MLServerAdapter, mlserver_root, **variables) as adapter:
        others = await not_passed(adapter, mlserver, model, v2_request({"inputs": [digit]}))
    assert others == {"load-concurrency": "does not apply: limitModelConcurrency is not set"}


async def triton_not_passed(
    s3: Any, triton: Any, triton_root: Path, run_adapter: Callable[..., Any], chosen: Collection[str] = ()
) -> dict[str, str]:
    """As `not_passed`, of the Triton adapter with a Python model."""
    for key in ("python/upper/config.pbtxt", "python/upper/1/model.py"):
        obstore.put(s3.store(), f"conformance/{key}", OBJECTS[key])
    obstore.put(s3.store(), "conformance/broken.onnx", b"this is no ONNX")
    text = {"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": ["models"]}
    model = model_at("conformance/python/upper", "conformance/broken.onnx", "python")
    variables = triton.adapter_variables(triton_root, s3.entry()) | {
        "LIMIT_PER_MODEL_CONCURRENCY": "3",
        "LOADING_CONCURRENCY": "2",
    }
    async with run_adapter(TritonAdapter, triton_root, **variables) as adapter:
        return await not_passed(adapter, triton, model, v2_request({"inputs": [text]}), chosen)


async def test_the_triton_adapter_keeps_the_most_telling_promises(
    s3: Any, triton: Any, triton_root: Path, run_adapter: Callable[..., Any]
) -> None:
    assert await triton_not_passed(s3, triton, triton_root, run_adapter, MOST_TELLING) == {}

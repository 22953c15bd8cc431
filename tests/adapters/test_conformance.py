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
from modelmesh.conformance.checks import Verdict
from modelmesh.conformance.inference import V2_INFER, Inference, v2_request
from modelmesh.conformance.run import ModelUnderTest, Run
from modelmesh.conformance.suite import run_suite

if TYPE_CHECKING:
    from collections.abc import Callable
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
        return eval, (f"__import__('time').sleep(0.1) or __import__('pickle').loads({svm!r})",)

open(sys.argv[1], "wb").write(pickle.dumps(Slow()))
"""


async def not_passed(adapter: Any, server: Any, model: ModelUnderTest, request: Any) -> dict[str, str]:
    """The checks that did not pass, each with its verdict and words."""
    async with (
        aio.insecure_channel(f"127.0.0.1:{adapter.settings.port}") as channel,
        server.channel() as data,
    ):
        run = Run(channel, model, Inference(data, V2_INFER, request.SerializeToString()))
        results = [result async for result in run_suite(run)]
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

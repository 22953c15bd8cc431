"""A million requests while models load, unload and move: none fails, and memory does not grow.

The policy is a stand-in (`bench.dataplane_instance --churn`); byte paths, model server and load are real.
"""

import argparse
import contextlib
import secrets
import sys

import grpc

from api.proto import model_runtime_pb2, model_runtime_pb2_grpc
from bench import echo
from bench.dataplane import Instance
from bench.dataplane_instance import concrete

MODELS = 200
CHURN = 2000
WARM_UP = 200_000
KIB = 1024
MOST_KIB_PER_1000 = 1.0


def load_models(target: str) -> None:
    """Loads all models into the echo runtime."""
    with grpc.insecure_channel(target) as channel:
        stub = model_runtime_pb2_grpc.ModelRuntimeStub(channel)
        for number in range(MODELS):
            request = model_runtime_pb2.LoadModelRequest(modelId=concrete(number), modelPath="SIZE_1_0_0")
            stub.loadModel(request)


def requests(target: str, count: int) -> dict[str, int]:
    """Sends requests for all models; returns the errors."""
    asked = (f"--target={target}", f"--models={MODELS}", "--in-flight=64", "--connections=4")
    seed = secrets.randbelow(1 << 32)
    report = echo.load(*asked, f"--requests={count}", f"--seed={seed}", "--deadline-ms=60000")
    print(f"{report['requests']} requests at {report['rps']:.0f}/s, errors {report['errors']}", flush=True)
    for text in report["error_texts"]:
        print(f"  {text}")
    return dict(report["errors"])


def main() -> int:
    """Returns 1 where a request failed or memory grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000, help="after the warm-up")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        runtime = stack.enter_context(echo.EchoRuntime("--capacity=100000000"))
        load_models(runtime.target)
        there = Instance(f"--runtime={runtime.target}", f"--models={MODELS}")
        stack.callback(there.stop)
        options = (f"--runtime={runtime.target}", f"--peer={there.peer}", f"--models={MODELS}")
        here = Instance(*options, f"--churn={CHURN}")
        stack.callback(here.stop)
        failed = requests(here.target, WARM_UP)
        before = {name: instance.rss_mib() for name, instance in (("here", here), ("there", there))}
        failed |= requests(here.target, arguments.requests)
        grown = 0.0
        for name, instance in (("here", here), ("there", there)):
            kib = (instance.rss_mib() - before[name]) * KIB
            grown = max(grown, 1000 * kib / arguments.requests)
            print(f"{name}: {before[name]:.1f} MiB after the warm-up, {kib:+.0f} KiB since")
    print(f"growth {grown:.3f} KiB for 1,000 requests (at most {MOST_KIB_PER_1000})")
    return int(bool(failed) or grown > MOST_KIB_PER_1000)


if __name__ == "__main__":
    sys.exit(main())

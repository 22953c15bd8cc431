"""The contract of inference: a loaded model answers; one that is not is refused as the mesh knows it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc

from modelmesh.conformance.checks import Failure, Group, NotRun
from modelmesh.conformance.loading import load_succeeds

if TYPE_CHECKING:
    from modelmesh.conformance.inference import Inference
    from modelmesh.conformance.run import Run

GROUP = Group("inference")

_AT_ONCE = 16


def _inference(run: Run) -> Inference:
    if run.inference is None:
        raise NotRun("needs a request: give --infer")
    return run.inference


@GROUP.check(load_succeeds)
async def infer_answers(run: Run) -> None:
    """A loaded model answers, to a method that the mesh lets through."""
    inference = _inference(run)
    listed = run.terms.methodInfos
    if listed and not run.terms.allowAnyMethod and inference.method not in listed:
        raise Failure(
            f"methodInfos do not list {inference.method}, so the mesh refuses it; listed: {', '.join(listed)}"
        )
    async with run.loaded() as model_id:
        what = f"inference of a loaded model by {inference.method}"
        await run.demand(run.infer(inference, model_id), what)


@GROUP.check(infer_answers)
async def infer_by_many(run: Run) -> None:
    """Two models answer many requests at once."""
    inference = _inference(run)
    async with run.loaded() as first, run.loaded() as second:
        requests = (run.infer(inference, model_id) for _ in range(_AT_ONCE) for model_id in (first, second))
        await asyncio.gather(
            *(run.demand(each, f"one of {2 * _AT_ONCE} requests at once") for each in requests)
        )


@GROUP.check(infer_answers)
async def infer_not_loaded(run: Run) -> None:
    """Inference of a model that is not loaded fails as NOT_FOUND: then the mesh loads it and asks again."""
    inference = _inference(run)
    async with run.loaded() as model_id:
        await run.unload(model_id)
        for id_, what in (
            (model_id, "a model that was unloaded"),
            (run.new_id(), "a model that nobody loaded"),
        ):
            code, words = await run.outcome(run.infer(inference, id_))
            if not _says_not_loaded(code, words):
                raise Failure(
                    f"inference of {what} ended with {code.name}: {words}; the mesh would "
                    "pass that on to the client, where NOT_FOUND has it load the model"
                )


def _says_not_loaded(code: grpc.StatusCode, words: str) -> bool:
    """Whether the mesh reads it as "not loaded"; it also knows how Triton, MLServer and TorchServe say so."""
    match code:
        case grpc.StatusCode.NOT_FOUND:
            return True
        case grpc.StatusCode.UNAVAILABLE:
            return "Request for unknown model" in words and (
                "is not found" in words or "has no available versions" in words
            )
        case grpc.StatusCode.INVALID_ARGUMENT:
            return words.startswith("Model ") and " not found" in words
        case grpc.StatusCode.INTERNAL:
            return words.startswith("Model not found") and "ModelNotFoundException" in words
    return False

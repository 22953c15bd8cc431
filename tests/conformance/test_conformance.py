"""The suite passes a runtime that keeps the contract, and names each promise that another one breaks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from grpc import aio

from api.proto.model_runtime_pb2_grpc import ModelRuntimeServicer
from modelmesh.conformance.checks import Verdict
from modelmesh.conformance.inference import V2_INFER, Inference, injection, v2_request
from modelmesh.conformance.run import ModelUnderTest, Run
from modelmesh.conformance.suite import CHECKS, run_suite
from tests.conformance.runtime import BROKEN, FAULTS, GOOD, LOAD_S, Runtime, serving

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from modelmesh.conformance.checks import Check, Result

MODEL = ModelUnderTest.of(GOOD, "toy", "", BROKEN)
REQUEST = v2_request({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]})


async def results_of(
    runtime: Runtime,
    chosen: Sequence[Check] = CHECKS,
    *,
    model: ModelUnderTest | None = MODEL,
    infer: bool = True,
) -> dict[str, Result]:
    async with serving(runtime, "127.0.0.1:0") as endpoint, aio.insecure_channel(endpoint) as channel:
        run = Run(channel, model, timeout_s=3.0, start_s=1.0)
        if infer:
            run.inference = Inference(channel, V2_INFER, REQUEST.SerializeToString())
        return {result.check.name: result async for result in run_suite(run, chosen)}


def failed(results: dict[str, Result]) -> list[str]:
    return [name for name, result in results.items() if result.verdict is Verdict.FAILED]


# By inference it is `test_command` that asks.
async def test_a_runtime_that_keeps_the_contract_passes_every_check_by_modelsize() -> None:
    runtime = Runtime()
    results = await results_of(runtime, infer=False)
    expected = dict.fromkeys((check.name for check in CHECKS), Verdict.PASSED)
    expected |= dict.fromkeys(("infer-answers", "infer-by-many", "infer-not-loaded"), Verdict.NOT_RUN)
    assert {name: result.verdict for name, result in results.items()} == expected, results
    assert runtime.models == set()


def checks_named(*names: str) -> list[Check]:
    return [check for check in CHECKS if check.name in names]


def come_late(monkeypatch: pytest.MonkeyPatch, times: int) -> list[float]:
    """Has the suite come too late to disturb loads, as on a busy machine; the list gets each attempt."""
    attempts: list[float] = []

    async def wait_for_part(_: Run, part: float) -> None:
        attempts.append(part)
        await asyncio.sleep(LOAD_S + 0.2 if len(attempts) <= times else 0.02)

    monkeypatch.setattr(Run, "wait_for_part", wait_for_part)
    return attempts


@pytest.mark.parametrize("name", ["unload-during-load", "load-after-cancel", "cancel-harms-no-other"])
async def test_a_load_that_was_over_too_soon_is_disturbed_once_more(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = come_late(monkeypatch, times=1)
    results = await results_of(Runtime(), checks_named(name))
    assert results[name].verdict is Verdict.PASSED, results
    assert len(attempts) > 1


async def test_what_is_always_over_too_soon_is_not_called_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    come_late(monkeypatch, times=100)
    name = "cancelled-load-leaves-nothing"
    results = await results_of(Runtime(), checks_named(name))
    assert results[name].verdict is Verdict.NOT_RUN
    assert "too fast" in results[name].words


@pytest.fixture(scope="module")
def broken_runtimes() -> dict[str, dict[str, Result]]:
    """What the check that must catch it says of each fault; some at a time, since most of it is waiting."""
    turns = asyncio.Semaphore(8)

    async def result(fault: str) -> dict[str, Result]:
        async with turns:
            return await results_of(Runtime(fault), checks_named(FAULTS[fault]))

    async def every() -> dict[str, dict[str, Result]]:
        return dict(zip(FAULTS, await asyncio.gather(*map(result, FAULTS)), strict=True))

    return asyncio.run(every())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_promise_is_caught_by_the_name_of_its_check(
    fault: str, broken_runtimes: dict[str, dict[str, Result]]
) -> None:
    (check,) = checks_named(FAULTS[fault])
    results = broken_runtimes[fault]
    assert results[check.name].verdict is Verdict.FAILED, results
    assert failed(results) == [check.name], results
    assert results[check.name].words


def test_every_check_has_a_runtime_that_it_catches() -> None:
    redundant = {"load-after-purge"}  # what breaks it breaks a check that it needs
    assert {check.name for check in CHECKS} - redundant == set(FAULTS.values())


async def test_without_a_model_only_what_needs_none_is_tried_and_the_rest_says_what_to_give() -> None:
    results = await results_of(Runtime(), model=None, infer=False)
    passed = [name for name, result in results.items() if result.verdict is Verdict.PASSED]
    assert passed == ["status-ready", "status-limits", "status-methods", "unload-unknown"]
    others = [result for name, result in results.items() if name not in passed]
    assert {result.verdict for result in others} == {Verdict.NOT_RUN}
    assert all("--model-path" in result.words for result in others)


async def test_what_cannot_be_seen_is_not_called_passed() -> None:
    class Blind(Runtime):
        modelSize = ModelRuntimeServicer.modelSize  # noqa: N815 - unimplemented, as in many runtimes

    results = await results_of(Blind(), infer=False)
    assert results["unload-empties"].verdict is Verdict.NOT_RUN
    assert "--infer" in results["unload-empties"].words
    assert results["load-again"].verdict is Verdict.PASSED
    assert results["cancelled-load-leaves-nothing"].verdict is Verdict.NOT_RUN


async def test_a_request_that_no_model_answers_is_not_blamed_on_unloading() -> None:
    results = await results_of(Runtime("inference fails"), checks_named("infer-answers", "unload-empties"))
    assert failed(results) == ["infer-answers"]
    assert results["unload-empties"].verdict is Verdict.PASSED  # seen by modelSize


async def test_what_needs_a_check_that_failed_is_not_run_and_names_it() -> None:
    results = await results_of(Runtime("load fails"))
    assert failed(results) == ["load-succeeds"]
    assert (
        results["unload-empties"].needed == results["cancelled-load-leaves-nothing"].needed == "load-succeeds"
    )


async def test_nothing_that_the_suite_loaded_stays_when_it_is_broken_off() -> None:
    runtime = Runtime()
    task = asyncio.create_task(results_of(runtime))
    async with asyncio.timeout(20):
        while not runtime.models:  # noqa: ASYNC110 - the suite changes it, and tells nobody
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert runtime.models == set()


async def test_a_runtime_that_hangs_holds_up_the_end_for_one_timeout_only() -> None:
    class Hanging(Runtime):
        async def unloadModel(self, _: object, __: object) -> None:  # type: ignore[override]  # noqa: N802
            await asyncio.sleep(60)

    async with serving(Hanging(), "127.0.0.1:0") as endpoint, aio.insecure_channel(endpoint) as channel:
        run = Run(channel, timeout_s=0.5)
        for _ in range(10):
            run.new_id()
        async with asyncio.timeout(3):
            await run.clean_up()


async def test_a_unix_socket_is_an_endpoint_too(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/spi.sock"
    async with serving(Runtime(), address), aio.insecure_channel(address) as channel:
        results = [result async for result in run_suite(Run(channel, start_s=2.0))]
    assert results[0].verdict is Verdict.PASSED


@pytest.mark.parametrize(
    ("path", "encoded"),
    [((1,), b"\x0a\x02id"), ((16,), b"\x82\x01\x02id"), ((2, 1), b"\x12\x04\x0a\x02id")],
)
def test_an_id_is_encoded_in_the_field_where_the_runtime_wants_it(
    path: tuple[int, ...], encoded: bytes
) -> None:
    assert injection(path, "id") == encoded
    long = "x" * 300
    assert injection((1,), long) == b"\x0a\xac\x02" + long.encode()


def test_a_v2_request_in_json_becomes_the_message() -> None:
    body = {
        "id": "7",
        "inputs": [
            {
                "name": "text",
                "datatype": "BYTES",
                "shape": [2],
                "data": ["a", "b"],
                "parameters": {"content_type": "str"},
            },
            {
                "name": "n",
                "datatype": "FP64",
                "shape": [2, 2],
                "data": [[1, 2], [3, 4]],
                "parameters": {"k": 5, "b": True},
            },
        ],
        "outputs": [{"name": "y"}],
    }
    request = v2_request(body)
    assert list(request.inputs[0].contents.bytes_contents) == [b"a", b"b"]
    assert request.inputs[0].parameters["content_type"].string_param == "str"
    assert list(request.inputs[1].contents.fp64_contents) == [1, 2, 3, 4]
    assert request.inputs[1].parameters["k"].int64_param == 5
    assert request.inputs[1].parameters["b"].bool_param
    assert [output.name for output in request.outputs] == ["y"]

"""The command: what it prints, its exit status, and what it says of a wrong command line."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from grpc import aio

from modelmesh.conformance.main import main
from modelmesh.conformance.suite import CHECKS
from tests.conformance.runtime import BROKEN, GOOD, Runtime, serving
from tests.store.etcd_server import free_port

if TYPE_CHECKING:
    from pathlib import Path


async def run(runtime: Runtime, *arguments: str) -> tuple[int, str]:
    """Runs the command as a process against a runtime; its status and all that it printed."""
    async with serving(runtime, "127.0.0.1:0") as endpoint:
        return await run_command(endpoint, *arguments)


async def run_command(*arguments: str) -> tuple[int, str]:
    """Runs the command as a process; its status and all that it printed."""
    command = (sys.executable, "-m", "modelmesh", "conformance", *arguments)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = await asyncio.create_subprocess_exec(*command, **pipes)
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


@pytest.fixture
def model(tmp_path: Path) -> list[str]:
    """Options that give everything."""
    request = tmp_path / "request.json"
    request.write_text('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}')
    return ["--model-path", GOOD, "--model-type", "toy", "--broken-path", BROKEN, "--infer", str(request)]


async def test_a_runtime_that_keeps_the_contract_is_status_0(model: list[str]) -> None:
    status, printed = await run(Runtime(), *model)
    assert status == 0, printed
    assert all(f"passed          {check.name}\n" in printed for check in CHECKS)
    assert printed.endswith("The runtime keeps the contract.\n")


async def test_a_broken_promise_is_status_1_and_named_with_what_must_hold(model: list[str]) -> None:
    status, printed = await run(Runtime("unload takes all"), *model, "--check", "unload-only-named")
    assert status == 1, printed
    assert "FAILED          unload-only-named\n" in printed
    words = " ".join(printed.split())
    assert "must hold: An unload leaves other models alone" in words
    assert "but: the model is not loaded after another model was unloaded" in words
    assert printed.endswith("The runtime breaks the contract: unload-only-named.\n")


async def test_not_to_have_looked_is_status_3() -> None:
    status, printed = await run(Runtime())
    assert status == 3
    assert "not run         load-succeeds\n                  needs a model: give --model-path" in printed
    assert printed.endswith("Nothing was found wrong, but not everything was tried; exit status 3.\n")


async def test_only_the_chosen_checks_and_what_they_need_are_made(model: list[str]) -> None:
    status, printed = await run(Runtime(), *model, "--check", "load-size")
    assert status == 0
    assert printed.endswith("The runtime keeps what was checked of the contract.\n")
    assert [line.split()[1] for line in printed.splitlines() if line.startswith("  passed")] == [
        "status-ready",
        "load-succeeds",
        "load-size",
    ]


def test_nobody_at_the_endpoint_is_a_failure_that_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"port:{free_port()}", "--start-timeout", "0.3"]) == 1
    words = " ".join(capsys.readouterr().out.split())
    assert "FAILED status-ready" in words
    assert "not READY within 0.3 s; it said last: no answer" in words
    assert "All other checks need status-ready." in words


async def test_an_endpoint_of_something_else_is_a_failure_that_asks_for_the_right_one() -> None:
    server = aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    status, words = await run_command(f"127.0.0.1:{port}")
    await server.stop(0)
    assert status == 1
    assert "nobody speaks mmesh.ModelRuntime there" in " ".join(words.split())


def test_the_list_has_every_check_with_its_demand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert all(check.name in printed and check.demand in printed for check in CHECKS)
    assert len({check.name for check in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "ENDPOINT is missing"),
        (["nonsense"], "'nonsense' must be port:NUMBER, HOST:PORT or unix:/PATH"),
        (["port:70000"], "must be port:NUMBER"),
        (["unix:"], "must be port:NUMBER"),
        (["port:1", "--data-endpoint", "x"], "--data-endpoint"),
        (["port:1", "--check", "no-such"], "there is no check 'no-such'"),
        (["port:1", "--model-type", "onnx"], "--model-path"),
        (["port:1", "--model-path", "/m", "--model-key", "{"], "is not a JSON object"),
        (["port:1", "--model-path", "/m", "--model-key", "[1]"], "is not a JSON object"),
        (["port:1", "--model-path", "/m", "--infer", "missing.json"], "missing.json"),
    ],
)
def test_a_wrong_command_line_is_status_2_and_says_what_is_wrong(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "Expecting property name"),
        ("[1]", "not a V2 inference request"),
        ("{}", "inputs"),
        (json.dumps({"inputs": [{"name": "x", "datatype": "FP16", "shape": [1], "data": [1]}]}), "FP16"),
        (json.dumps({"inputs": [{"name": "x", "datatype": "INT64", "shape": [1], "data": ["a"]}]}), "V2"),
    ],
)
def test_a_wrong_request_is_status_2_and_says_what_is_wrong(
    content: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "request.json"
    file.write_text(content)
    assert main(["port:1", "--model-path", "/m", "--infer", str(file)]) == 2
    assert words in " ".join(capsys.readouterr().err.split())

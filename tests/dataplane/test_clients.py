"""Clients of other makes than grpcio."""

import asyncio
import json
from pathlib import Path

import pytest

from local import tools
from local.home import Home
from tests.dataplane.harness import ALIAS, MODEL, ROOT, Instance


@pytest.fixture(scope="module")
def grpcurl() -> Path:
    return tools.ensure(tools.GRPCURL, Home.from_environment().tools)


async def run(grpcurl: Path, instance: Instance, *options: str) -> tuple[int | None, str, str]:
    """Calls ModelInfer by grpcurl; returns its exit status, answer and errors."""
    process = await asyncio.create_subprocess_exec(
        *(grpcurl, "-plaintext", "-import-path", ROOT / "fvt/proto"),
        *("-proto", "kfs_inference_v2.proto", *options),
        *(instance.addresses["grpc"], "inference.GRPCInferenceService.ModelInfer"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    answer, errors = await process.communicate()
    return process.returncode, answer.decode(), errors.decode()


async def test_grpcurl_names_the_model_in_the_message_or_in_headers(
    grpcurl: Path, instance: Instance
) -> None:
    for named in (
        ["-d", json.dumps({"model_name": ALIAS})],
        ["-rpc-header", f"mm-model-id: {MODEL}", "-d", "{}"],
    ):
        status, answer, errors = await run(grpcurl, instance, *named)
        assert status == 0, errors
        assert json.loads(answer)["modelName"] == MODEL


async def test_grpcurl_reads_the_status_of_the_server_and_of_the_instance(
    grpcurl: Path, instance: Instance
) -> None:
    broken = json.dumps({"model_name": ALIAS, "id": "error:INVALID_ARGUMENT:not so"})
    _, _, errors = await run(grpcurl, instance, "-d", broken)
    assert "InvalidArgument" in errors
    assert "not so" in errors
    _, _, errors = await run(grpcurl, instance, "-d", '{"model_name": "nobody"}')
    assert "NotFound" in errors
    slow = json.dumps({"model_name": ALIAS, "id": "slow:5000"})
    _, _, errors = await run(grpcurl, instance, "-max-time", "0.3", "-d", slow)
    assert "DeadlineExceeded" in errors

"""A running server with the shipped custom resources, and the real kubectl on it."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import pytest
import yaml

from controller.runtime.apiserver import Core
from controller.runtime.errors import NotFound
from local.apiserver import LocalApiServer, LogRequest, write_kubeconfig

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

ROOT = Path(__file__).parents[3]
NAMESPACE = "modelmesh-serving"
DEADLINE_S = 30.0


async def pod_logs(request: LogRequest) -> AsyncGenerator[bytes, None]:
    """Two lines for each container; nothing of a former run."""
    if request.previous:
        raise NotFound(f"previous terminated container {request.container} not found")
    lines = [f"{request.container} line {number}\n".encode() for number in (1, 2)]
    for line in lines[-request.tail_lines :] if request.tail_lines else lines:
        yield line
    if request.follow:
        yield b"followed\n"


@pytest.fixture(scope="session")
def definitions() -> list[dict[str, Any]]:
    paths = sorted((ROOT / "config" / "crd").glob("*.yaml"))
    return [yaml.load(path.read_text(), Loader=yaml.CSafeLoader) for path in paths]


@pytest.fixture
def core(definitions: list[dict[str, Any]]) -> Core:
    server = Core(namespaces=(NAMESPACE,))
    for definition in definitions:
        server.register_definition(definition)
    return server


@asynccontextmanager
async def running(core: Core) -> AsyncIterator[LocalApiServer]:
    server = LocalApiServer(core, port=0, pod_logs=pod_logs)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture
async def server(core: Core) -> AsyncIterator[LocalApiServer]:
    async with running(core) as started:
        yield started


@pytest.fixture
async def http(server: LocalApiServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(base_url=server.url) as session:
        yield session


class Result(NamedTuple):
    """What a finished command said."""

    code: int
    out: str
    err: str


class Kubectl:
    """Runs the real kubectl against the server."""

    def __init__(self, binary: str, home: Path, url: str) -> None:
        self._binary = binary
        self._home = home
        write_kubeconfig(home / "kubeconfig", url, NAMESPACE)

    async def start(self, *arguments: str, stdin: str = "") -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            self._binary,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                "HOME": str(self._home),
                "KUBECONFIG": str(self._home / "kubeconfig"),
                "PATH": os.environ["PATH"],
            },
        )
        if process.stdin:
            process.stdin.write(stdin.encode())
            process.stdin.close()
        return process

    async def run(self, *arguments: str, stdin: str = "") -> Result:
        process = await self.start(*arguments, stdin=stdin)
        assert process.stdout
        assert process.stderr
        try:
            async with asyncio.timeout(DEADLINE_S):
                out, err = await asyncio.gather(process.stdout.read(), process.stderr.read())
                return Result(await process.wait(), out.decode(), err.decode())
        finally:
            if process.returncode is None:
                process.kill()

    async def __call__(self, *arguments: str, stdin: str = "") -> str:
        """Run a command that must succeed and return what it printed."""
        result = await self.run(*arguments, stdin=stdin)
        assert result.code == 0, f"kubectl {' '.join(arguments)}: {result.err}{result.out}"
        return result.out + result.err


@pytest.fixture
def kubectl(server: LocalApiServer, tmp_path: Path) -> Kubectl:
    """The kubectl that KUBECTL names, else the one on PATH."""
    binary = os.environ.get("KUBECTL") or shutil.which("kubectl")
    if not binary:
        pytest.skip("there is no kubectl on PATH (KUBECTL names another one)")
    return Kubectl(binary, tmp_path, server.url)


@pytest.fixture
def isvc() -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": "example-sklearn-isvc",
            "annotations": {"serving.kserve.io/deploymentMode": "ModelMesh"},
        },
        "spec": {
            "predictor": {
                "model": {
                    "modelFormat": {"name": "sklearn"},
                    "storage": {"key": "localMinIO", "path": "sklearn/mnist-svm.joblib"},
                },
            },
        },
    }

"""Servers that tests and benchmarks of the adapters start: S3, MLServer, Triton, and OpenVINO's stand-in."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc import aio

from api.proto.kfs_inference_v2_pb2 import RepositoryIndexRequest
from local import tools
from local.home import Home
from tests.store.etcd_server import free_port

START_SECONDS = 60


def wait_for_http(url: str, status: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until the URL answers so; AssertionError with the end of the log where it does not."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-3000:]
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=2).status_code == status:
                return
        time.sleep(0.02)
    raise AssertionError(f"{url} did not answer {status}:\n{log.read_text()[-3000:]}")


@contextlib.contextmanager
def s3_server(folder: Path, key: str, secret: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Runs SeaweedFS with one account and the bucket `models`; yields its endpoint and its process."""
    weed = tools.ensure(tools.WEED, Home.from_environment().tools)
    (folder / "data").mkdir()
    identity = {
        "name": "modelmesh",
        "credentials": [{"accessKey": key, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    services = ("master", "volume", "filer", "admin")
    ports = [f"-{name}.port{kind}={free_port()}" for name in services for kind in ("", ".grpc")]
    port = free_port()
    command = [
        str(weed),
        *("-logtostderr", "mini", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *("-master.telemetry=false", "-webdav=false", "-admin.ui=false", "-volume.max=32"),
        *("-volume.preStopSeconds=0", "-s3.config=s3.json", "-s3.iam=false", "-bucket=models"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.port={port}", f"-s3.port.grpc={free_port()}"),
        *("-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock", *ports),
    ]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
    try:
        endpoint = f"http://127.0.0.1:{port}"
        wait_for_http(endpoint, 403, process, log)
        yield endpoint, process
    finally:
        process.kill()
        process.wait()


@dataclass
class ModelServer:
    """A real model server, which may be killed and started again on its ports."""

    environment: Path
    folder: Path
    models: Path
    grpc_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    metrics_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str]:
        """The program, below the environment's `bin`, and its arguments."""
        raise NotImplementedError

    def variables(self) -> Mapping[str, str]:
        """Environment variables."""
        raise NotImplementedError

    def start(self) -> None:
        """Starts the process; it is ready seconds later."""
        self.folder.mkdir(exist_ok=True, parents=True)
        self.models.mkdir(exist_ok=True, parents=True)
        program, *arguments = self.command()
        with (self.folder / "log").open("ab") as output:
            self.process = subprocess.Popen(
                [str(self.environment / "bin" / program), *arguments],
                cwd=self.folder,
                env={**os.environ, **self.variables()},
                stdout=output,
                stderr=output,
            )

    def kill(self) -> None:
        """Ends the process as `kill -9` does."""
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def wait_ready(self) -> None:
        """Waits until it serves."""
        assert self.process
        url = f"http://127.0.0.1:{self.http_port}/v2/health/ready"
        wait_for_http(url, 200, self.process, self.folder / "log")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Starts it, and kills what runs at the end of the block."""
        self.start()
        try:
            yield
        finally:
            self.kill()

    def serving(self) -> None:
        """Waits until it serves, after starting it where a test has killed it."""
        if self.process is None:
            self.start()
        self.wait_ready()

    def channel(self) -> aio.Channel:
        """To its own gRPC port, as the data path uses it."""
        options = (("grpc.max_reconnect_backoff_ms", 200),)
        return aio.insecure_channel(f"127.0.0.1:{self.grpc_port}", options=options)

    def adapter_variables(self, root: Path, entry: Mapping[str, str]) -> dict[str, str]:
        """Variables of the adapter in front of it, with the entry `localMinIO` in its storage Secret."""
        secret = root / "storage-config"
        secret.mkdir(exist_ok=True)
        (secret / "localMinIO").write_text(json.dumps(entry))
        return {"USE_EMBEDDED_PULLER": "true", "RUNTIME_PORT": str(self.grpc_port)}


class MLServer(ModelServer):
    """A real MLServer."""

    def command(self) -> Sequence[str]:
        return ["mlserver", "start", str(self.models)]

    def variables(self) -> Mapping[str, str]:
        return {
            "MLSERVER_MODELS_DIR": str(self.models),
            "MLSERVER_GRPC_PORT": str(self.grpc_port),
            "MLSERVER_HTTP_PORT": str(self.http_port),
            "MLSERVER_METRICS_PORT": str(self.metrics_port),
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_LOAD_MODELS_AT_STARTUP": "false",
            "MLSERVER_MODEL_NAME": "dummy-model-fixme",
            "MLSERVER_GRPC_MAX_MESSAGE_LENGTH": "-1",
            "MLSERVER_PARALLEL_WORKERS": "0",
        }


class Triton(ModelServer):
    """A real Triton."""

    def command(self) -> Sequence[str]:
        return [
            "tritonserver",
            f"--model-repository={self.models}",
            "--model-control-mode=explicit",
            "--strict-readiness=false",
        ]

    def variables(self) -> Mapping[str, str]:
        return {
            "TRITON_ADDRESS": "127.0.0.1",
            "TRITON_GRPC_PORT": str(self.grpc_port),
            "TRITON_HTTP_PORT": str(self.http_port),
            "TRITON_METRICS_PORT": str(self.metrics_port),
        }


class OpenVINO(ModelServer):
    """The STAND-IN for OpenVINO Model Server: `http_port` has the REST API of its configuration."""

    def command(self) -> Sequence[str]:
        return [
            "ovms-stand-in",
            f"--port={self.grpc_port}",
            f"--rest_port={self.http_port}",
            f"--config_path={self.models.parent / 'model_config_list.json'}",
            "--file_system_poll_wait_seconds=0",
            "--grpc_bind_address=127.0.0.1",
            "--rest_bind_address=127.0.0.1",
        ]

    def variables(self) -> Mapping[str, str]:
        return {}

    def adapter_variables(self, root: Path, entry: Mapping[str, str]) -> dict[str, str]:
        """As for the others; the adapter speaks to the REST port."""
        return super().adapter_variables(root, entry) | {"RUNTIME_PORT": str(self.http_port)}


async def held(inference: Any) -> list[str]:
    """Names of the models that a server of the V2 protocol can serve."""
    index = await inference.RepositoryIndex(RepositoryIndexRequest(ready=True))
    return sorted(model.name for model in index.models)


async def refused(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str]:
    """Code and words of a call that must fail."""
    with pytest.raises(aio.AioRpcError) as raised:
        await call
    return raised.value.code(), raised.value.details() or ""

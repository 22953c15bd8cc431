"""Fixtures: an adapter run by `serve` over a fake or a real MLServer, and a real S3 server."""

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from adapters.errors import ServerError, ServerUnreachableError
from adapters.sdk import Model, ServerAdapter, Settings, serve
from api.proto.model_runtime_pb2 import (
    LoadModelRequest,
    RuntimeStatusRequest,
    RuntimeStatusResponse,
    UnloadModelRequest,
)
from api.proto.model_runtime_pb2_grpc import ModelRuntimeStub
from local import environments
from local.home import Home
from tests.adapters.servers import MLServer, OpenVINO, Triton, s3_server
from tests.store.etcd_server import free_port

MIB = 1 << 20
READY = RuntimeStatusResponse.READY
STARTING = RuntimeStatusResponse.STARTING
ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves tests with emulators out, unless they are asked for: their servers take minutes to build."""
    if "emulator" not in config.option.markexpr:
        out = [item for item in items if item.get_closest_marker("emulator")]
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


class FakeServer(ServerAdapter):
    """A model server in this process that can die, hang and refuse."""

    title = "FakeServer"
    folder_name = "_fake_models"
    before: frozenset[str] = frozenset()

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.alive = True
        self.models: set[str] = set(self.before)
        self.calls: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.refusals: dict[str, ServerError] = {}
        self.sizes: dict[str, int] = {}
        self.poison: set[str] = set()
        self._lost = asyncio.Event()

    def die(self) -> None:
        """Ends as a process that is killed: models gone, connection lost."""
        self.alive = False
        self.models.clear()
        self._lost.set()

    def come_back(self) -> None:
        """Starts again, empty."""
        self.alive = True
        if self._lost.is_set():
            self._lost = asyncio.Event()

    def lose_connection(self) -> None:
        """Loses the connection only."""
        self._lost.set()
        self._lost = asyncio.Event()

    def hold(self, model_id: str) -> asyncio.Event:
        """Makes loads of a model wait until the event is set."""
        return self.gates.setdefault(model_id, asyncio.Event())

    async def is_ready(self) -> bool:
        return self.alive

    async def wait_lost(self) -> None:
        await self._lost.wait()

    async def loaded(self) -> list[str]:
        self._check()
        return sorted(self.models)

    async def version(self) -> str:
        return "9.8.7"

    def lay_out(self, model: Model, folder: Path) -> None:
        (folder / "laid-out").write_text(model.type)

    async def load(self, model: Model) -> None:
        self._check()
        self.calls.append(f"load {model.id}")
        if gate := self.gates.get(model.id):
            # The work goes on when the caller has left, as in a real server.
            await asyncio.shield(asyncio.create_task(self._work(model.id, gate)))
        if model.id in self.poison:
            self.die()
            asyncio.get_running_loop().call_soon(self.come_back)
            raise ServerUnreachableError("FakeServer gives no answer: connection reset")
        self._check()
        if refusal := self.refusals.get(model.id):
            raise refusal
        self.models.add(model.id)

    async def unload(self, model_id: str) -> None:
        self._check()
        self.calls.append(f"unload {model_id}")
        self.models.discard(model_id)

    async def measured_size(self, model_id: str) -> int | None:
        return self.sizes.get(model_id)

    async def _work(self, model_id: str, gate: asyncio.Event) -> None:
        await gate.wait()
        if self.alive:
            self.models.add(model_id)

    def _check(self) -> None:
        if not self.alive:
            raise ServerUnreachableError("FakeServer gives no answer: connection refused")


@dataclass
class Mesh:
    """The mesh's side of the SPI: one session over one connection."""

    channel: aio.Channel
    session: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def stub(self) -> ModelRuntimeStub:
        """For calls that the helpers do not make."""
        return ModelRuntimeStub(self.channel)

    async def status(self, session: str | None = None) -> RuntimeStatusResponse:
        """Asks runtimeStatus once."""
        metadata = (("mm-session", session or self.session),)
        return await self.stub.runtimeStatus(RuntimeStatusRequest(), metadata=metadata, timeout=10)

    async def ready(self, seconds: float = 30) -> RuntimeStatusResponse:
        """Asks until READY."""
        async with asyncio.timeout(seconds):
            while True:
                with contextlib.suppress(aio.AioRpcError):
                    if (status := await self.status()).status == READY:
                        return status
                await asyncio.sleep(0.02)

    def load(self, model_id: str, path: str = "/m", *, label: str = "mt:sklearn", **key: Any) -> Any:
        """Calls loadModel."""
        request = LoadModelRequest(
            modelId=model_id, modelType=label, modelPath=path, modelKey=json.dumps(key)
        )
        return self.stub.loadModel(request, timeout=60)

    async def unload(self, model_id: str) -> None:
        """Calls unloadModel."""
        await self.stub.unloadModel(UnloadModelRequest(modelId=model_id), timeout=30)


@dataclass
class Adapter:
    """A running adapter."""

    server: Any
    settings: Settings
    mesh: Mesh
    stop: asyncio.Event

    def files(self) -> list[str]:
        """All that lies below the models' root, but for the folders that are always there."""
        root = self.settings.root
        names = (str(path.relative_to(root)) for path in root.rglob("*"))
        always = {self.server.folder_name, "_pulling", "_content"}
        return sorted(name for name in names if name not in always and not name.startswith("_content/"))


Run = Callable[..., contextlib.AbstractAsyncContextManager[Adapter]]


@contextlib.asynccontextmanager
async def running(
    adapter_type: type[ServerAdapter], root: Path, *, server_port: int = 1, **environment: Any
) -> AsyncIterator[Adapter]:
    """Runs an adapter in this process, its environment variables over sensible ones."""
    defaults = {
        "ADAPTER_PORT": free_port(),
        "RUNTIME_PORT": server_port,
        "CONTAINER_MEM_REQ_BYTES": 1024 * MIB,
        "MEM_BUFFER_BYTES": 128 * MIB,
        "ROOT_MODEL_DIR": root / "models",
        "STORAGE_CONFIG_DIR": root / "storage-config",
        "LOADTIME_TIMEOUT": 20_000,
    }
    variables = {name: str(value) for name, value in (defaults | environment).items()}
    settings = Settings.from_environment(
        variables, size_multiplier=adapter_type.size_multiplier, server_port=server_port
    )
    adapter, stop = adapter_type(settings), asyncio.Event()
    task = asyncio.create_task(serve(adapter, settings, stop))
    async with aio.insecure_channel(f"127.0.0.1:{settings.port}") as channel:
        try:
            yield Adapter(adapter, settings, Mesh(channel), stop)
        finally:
            stop.set()
            await asyncio.wait_for(task, 20)


@pytest.fixture
def run_adapter() -> Run:
    return running


@pytest.fixture
async def future_mesh() -> AsyncIterator[tuple[int, Mesh]]:
    """A mesh for an adapter that is still to be started, and the port on which it is expected."""
    port = free_port()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield port, Mesh(channel)


@pytest.fixture
def fake_type() -> type[FakeServer]:
    return FakeServer


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[Adapter]:
    """An adapter over a fake server, without a puller."""
    async with running(FakeServer, tmp_path) as adapter:
        yield adapter


# ---------------------------------------------------------------- real servers


@dataclass
class S3Server:
    """A SeaweedFS with one account."""

    endpoint: str
    process: subprocess.Popen[bytes]

    def entry(self, **changes: str) -> dict[str, str]:
        """An entry of the storage Secret that opens the bucket `models`."""
        return {
            "type": "s3",
            "endpoint_url": self.endpoint,
            "region": "us-south",
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
            "bucket": "models",
        } | changes

    def store(self, bucket: str = "models") -> Any:
        """A client that may do everything."""
        from obstore.store import S3Store  # noqa: PLC0415 - only tests with a server need it

        return S3Store(
            bucket,
            endpoint=self.endpoint,
            region="us-south",
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server for the whole run."""
    with s3_server(tmp_path_factory.mktemp("s3"), ACCESS_KEY, SECRET_KEY) as (endpoint, process):
        yield S3Server(endpoint, process)


@pytest.fixture(scope="session")
def mlserver_environment() -> Path:
    """The Python environment of `runtimes/mlserver/requirements.lock`, or the one that a variable names."""
    given = os.environ.get("MODELMESH_MLSERVER_ENV")
    return Path(given) if given else environments.ensure("mlserver", Home.from_environment().environments)


@pytest.fixture(scope="session")
def mlserver_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder whose `models` the shared MLServer looks at."""
    return tmp_path_factory.mktemp("mlserver")


@pytest.fixture(scope="session")
def _shared_mlserver(mlserver_environment: Path, mlserver_root: Path) -> Iterator[MLServer]:
    server = MLServer(
        mlserver_environment, mlserver_root / "cwd", mlserver_root / "models" / "_mlserver_models"
    )
    with server.running():
        yield server


@pytest.fixture
def mlserver(_shared_mlserver: MLServer) -> MLServer:
    """A real MLServer that is ready; tests that kill it need not start it again."""
    _shared_mlserver.serving()
    return _shared_mlserver


@pytest.fixture(scope="session")
def triton_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder whose `models` the shared Triton looks at."""
    return tmp_path_factory.mktemp("triton")


@pytest.fixture(scope="session")
def _shared_triton(triton_root: Path) -> Iterator[Triton]:
    environment = environments.ensure("triton", Home.from_environment().environments)
    server = Triton(environment, triton_root / "cwd", triton_root / "models" / "_triton_models")
    with server.running():
        yield server


@pytest.fixture
def triton(_shared_triton: Triton) -> Triton:
    """A real Triton that is ready; tests that kill it need not start it again."""
    _shared_triton.serving()
    return _shared_triton


@pytest.fixture(scope="session")
def ovms_environment() -> Path:
    """The Python environment of OpenVINO Model Server's stand-in."""
    return environments.ensure("ovms", Home.from_environment().environments)


@pytest.fixture(scope="session")
def ovms_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder whose `models` the shared stand-in looks at."""
    return tmp_path_factory.mktemp("ovms")


@pytest.fixture(scope="session")
def _shared_ovms(ovms_environment: Path, ovms_root: Path) -> Iterator[OpenVINO]:
    server = OpenVINO(ovms_environment, ovms_root / "cwd", ovms_root / "models" / "_ovms_models")
    config = ovms_root / "models" / "model_config_list.json"
    config.parent.mkdir()
    config.write_text('{"model_config_list": []}')
    with server.running():
        yield server


@pytest.fixture
def ovms_server(_shared_ovms: OpenVINO) -> OpenVINO:
    """The stand-in, ready; tests that kill it need not start it again."""
    _shared_ovms.serving()
    return _shared_ovms

"""A model volume that is really full: puller and adapter as processes over a file system of two megabytes."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web

from api.proto.model_runtime_pb2_grpc import add_ModelRuntimeServicer_to_server
from tests.adapters.servers import refused
from tests.adapters.test_proxy import CustomServer

pytestmark = pytest.mark.e2e

VOLUME = 2 << 20
_MOUNT = 'mount -t tmpfs -o "size=$1" none "$2" && shift 2 && exec "$@"'


@contextmanager
def on_small_volume(root: Path, variables: dict[str, str], *command: str) -> Iterator[Path]:
    """Runs `modelmesh COMMAND` with a file system of its own at `root`; yields that as seen from here."""
    root.mkdir(exist_ok=True)
    # Whoever is not root is it in a namespace of their own.
    namespaces = ["--mount"] if os.geteuid() == 0 else ["--mount", "--user", "--map-root-user"]
    line = ["unshare", *namespaces, "sh", "-c", _MOUNT, "sh", str(VOLUME), str(root)]
    process = subprocess.Popen(
        [*line, sys.executable, "-m", "modelmesh", *command],
        env=os.environ | variables | {"ROOT_MODEL_DIR": str(root)},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Path(f"/proc/{process.pid}/root{root}")
    finally:
        process.kill()
        process.wait()


def left(volume: Path) -> list[str]:
    names = (str(path.relative_to(volume)) for path in volume.rglob("*") if path.is_file())
    return sorted(name for name in names if not name.startswith("_content/"))


def fill(volume: Path) -> Path:
    """Leaves not one page free, as a server that writes without an end does."""
    path = volume / "_of_the_server"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return path


@pytest.fixture
async def storage() -> AsyncIterator[str]:
    """A web server whose files have the size that their path begins with; `quiet/` tells no length."""

    async def answer(request: web.Request) -> web.StreamResponse:
        *quiet, size, _ = request.path.strip("/").split("/")
        response = web.StreamResponse(headers={"ETag": f'"{request.path}"'})
        if not quiet:
            response.content_length = int(size)
        await response.prepare(request)
        if request.method == "GET":
            for _ in range(int(size) // 10_000):
                await response.write(b"x" * 10_000)
        return response

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def puller(tmp_path: Path, future_mesh: Any, storage: str) -> AsyncIterator[tuple[Any, Path]]:
    """The puller's SPI, and its volume; a server that takes any file stands behind it."""
    server = grpc.aio.server()
    add_ModelRuntimeServicer_to_server(CustomServer(), server)
    server.add_insecure_port(f"unix:{tmp_path / 'custom.sock'}")
    await server.start()
    port, mesh = future_mesh
    variables = {"PORT": str(port), "MODEL_SERVER_ENDPOINT": f"unix:{tmp_path / 'custom.sock'}"}
    with on_small_volume(tmp_path / "models", variables, "puller") as volume:
        await mesh.ready()

        def load(model_id: str, path: str) -> Any:
            return mesh.load(model_id, path, storage_params={"type": "http", "url": storage})

        mesh.pull = load
        yield mesh, volume
    await server.stop(0)


async def test_a_model_larger_than_the_volume_is_refused_with_both_sizes(puller: tuple[Any, Path]) -> None:
    mesh, volume = puller
    code, message = await refused(mesh.pull("m", "3000000/model"))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "the model has 3000000 bytes, and 20" in message
    assert left(volume) == []


async def test_a_volume_that_fills_up_during_a_pull_is_cleaned_up(puller: tuple[Any, Path]) -> None:
    mesh, volume = puller
    code, message = await refused(mesh.pull("m", "quiet/3000000/model"))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "model volume is full" in message
    assert left(volume) == []
    await mesh.pull("small", "1000000/model")
    assert left(volume) == ["small/model"]


async def test_what_was_kept_makes_room_before_a_model_is_refused(puller: tuple[Any, Path]) -> None:
    mesh, volume = puller
    await mesh.pull("first", "1500000/model")
    assert (await refused(mesh.pull("second", "1500000/other")))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    await mesh.unload("first")
    assert list(volume.glob("_content/*"))
    await mesh.pull("second", "1500000/other")
    assert left(volume) == ["second/other"]


async def test_a_layout_that_finds_no_room_is_told_undone_and_tried_again(
    mlserver: Any, tmp_path: Path, future_mesh: Any
) -> None:
    port, mesh = future_mesh
    claim = tmp_path / "claims" / "claim"
    claim.mkdir(parents=True)
    (claim / "model").write_bytes(b"not read before there is room")
    variables = {
        "ADAPTER_PORT": str(port),
        "CONTAINER_MEM_REQ_BYTES": str(1 << 30),
        "PVC_MOUNTS_DIR": str(claim.parent),
        "RUNTIME_PORT": str(mlserver.grpc_port),
        "USE_EMBEDDED_PULLER": "true",
    }
    key = {"storage_params": {"type": "pvc", "name": "claim"}, "model_type": {"name": "sklearn"}}
    with on_small_volume(tmp_path / "models", variables, "adapter", "mlserver") as volume:
        await mesh.ready()
        filler = fill(volume)
        # The link to the claim takes no room; the settings of the model do.
        code, message = await refused(mesh.load("m", "model", **key))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert message.startswith(
            "the adapter cannot use the model volume: [Errno 28] No space left on device"
        )
        assert left(volume) == [filler.name]
        filler.unlink()
        # Now it gets as far as to MLServer, which looks into another folder.
        assert "MLServer could not load model as" in (await refused(mesh.load("m", "model", **key)))[1]

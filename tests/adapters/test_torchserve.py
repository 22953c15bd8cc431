"""The TorchServe adapter without a server: layouts, settings, and what its answers mean."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from adapters.errors import ConfigurationError, InvalidModelError
from adapters.sdk import Model, Settings
from adapters.torchserve import TorchServeAdapter
from api.proto.torchserve_pb2 import ManagementResponse, RegisterModelRequest
from api.proto.torchserve_pb2_grpc import (
    ManagementAPIsServiceServicer,
    add_ManagementAPIsServiceServicer_to_server,
)


def settings(root: Path, **variables: str) -> Settings:
    environment = {"CONTAINER_MEM_REQ_BYTES": str(1 << 30), "ROOT_MODEL_DIR": str(root)} | variables
    return Settings.from_environment(environment, size_multiplier=2.75, server_port=7071, data_port=7070)


@pytest.fixture
async def build(tmp_path: Path) -> AsyncIterator[Callable[..., TorchServeAdapter]]:
    """Makes adapters that are closed in the end."""
    made: list[TorchServeAdapter] = []

    def make(**variables: str) -> TorchServeAdapter:
        made.append(TorchServeAdapter(settings(tmp_path, **variables)))
        made[-1].folder.mkdir(exist_ok=True)
        return made[-1]

    yield make
    for adapter in made:
        await adapter.close()


def lay_out(adapter: TorchServeAdapter, path: Path, model_id: str = "m__isvc-1") -> None:
    folder = adapter.folder / model_id
    folder.mkdir()
    adapter.lay_out(Model(model_id, "pytorch-mar", path), folder)


async def test_an_archive_of_any_name_is_linked_into_the_model_store(build: Any, tmp_path: Path) -> None:
    file = tmp_path / "densenet"
    file.write_bytes(b"x")
    adapter = build()
    lay_out(adapter, file)
    assert (adapter.folder / "_m__isvc-1.mar").readlink() == file


async def test_a_folder_is_refused_with_what_to_do(build: Any, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidModelError, match=r"folder is a folder.*one \.mar file"):
        lay_out(build(), tmp_path / "folder")
    with pytest.raises(InvalidModelError, match="there is nothing at"):
        lay_out(build(), tmp_path / "absent", "other")


async def test_the_configuration_that_the_container_waits_for_is_kept_by_purges(build: Any) -> None:
    adapter = build()
    adapter.prepare()
    file = adapter.folder / "mmconfig.properties"
    lines = file.read_text().splitlines()
    assert f"model_store={adapter.folder}" in lines
    assert "inference_address=http://127.0.0.1:8083" in lines
    assert file.stat().st_mode & 0o777 == 0o664
    assert adapter.kept == (file,)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, 0),
        ({"MAX_BATCH_DELAY_SECS": "50"}, 50),
        ({"MAX_BATCH_DELAY_MS": "100"}, 100),
        ({"MAX_BATCH_DELAY_MS": "100", "MAX_BATCH_DELAY_SECS": "50"}, 100),
    ],
)
async def test_the_delay_of_a_batch_is_in_milliseconds_under_both_names(
    build: Any, variables: dict[str, str], expected: int
) -> None:
    assert build(**variables)._batch_delay_ms == expected


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("REQUEST_BATCH_SIZE", "many", 'REQUEST_BATCH_SIZE is "many" and must be a whole number'),
        ("MAX_BATCH_DELAY_SECS", "-1", "MAX_BATCH_DELAY_SECS is -1 and must be 0 to"),
        ("RUNTIME_DATA_ENDPOINT", "7070", 'RUNTIME_DATA_ENDPOINT is "7070" and must be port:NUMBER'),
    ],
)
async def test_a_wrong_variable_is_named(build: Any, name: str, value: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build(**{name: value})


class Management(ManagementAPIsServiceServicer):
    """Answers what it is given, one after the other, the last one for ever."""

    def __init__(self) -> None:
        self.described: list[str] = []
        self.pages: dict[int, str] = {}
        self.registered: list[RegisterModelRequest] = []

    async def RegisterModel(self, request: Any, context: Any) -> ManagementResponse:  # noqa: ARG002, N802
        self.registered.append(request)
        return ManagementResponse(msg="{}")

    async def DescribeModel(self, request: Any, context: Any) -> ManagementResponse:  # noqa: ARG002, N802
        answer = self.described.pop(0) if len(self.described) > 1 else self.described[0]
        return ManagementResponse(msg=answer)

    async def ListModels(self, request: Any, context: Any) -> ManagementResponse:  # noqa: ARG002, N802
        return ManagementResponse(msg=self.pages[request.next_page_token])

    async def UnregisterModel(self, request: Any, context: Any) -> ManagementResponse:  # noqa: N802
        await context.abort(grpc.StatusCode.NOT_FOUND, f"Model not found: {request.model_name}")


@pytest.fixture
async def management() -> AsyncIterator[tuple[Management, int]]:
    servicer, server = Management(), aio.server()
    add_ManagementAPIsServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, port
    await server.stop(None)


def described(*memory: int) -> str:
    workers = ",".join(f'{{"id": "9000", "memoryUsage": {used}}}' for used in memory)
    return f'[{{"modelName": "m", "workers": [{workers}]}}]'


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([described(11111)], 12222),
        ([described(1000, 500)], 1650),
        ([described(1000, 0), described(1000, 1000)], 2200),  # a sum of fewer workers would be too small
    ],
)
async def test_the_size_is_the_memory_of_all_workers_and_a_tenth(
    build: Any, management: tuple[Management, int], answers: list[str], expected: int
) -> None:
    servicer, port = management
    servicer.described = answers
    assert await build(RUNTIME_PORT=str(port)).measured_size("m") == expected


async def test_all_pages_of_models_are_read(build: Any, management: tuple[Management, int]) -> None:
    servicer, port = management
    servicer.pages = {
        0: '{"nextPageToken": "500", "models": [{"modelName": "a", "modelUrl": "a.mar"}]}',
        500: '{"models": [{"modelName": "b", "modelUrl": "b.mar"}]}',
    }
    assert await build(RUNTIME_PORT=str(port)).loaded() == ["a", "b"]


async def test_unloading_what_torchserve_does_not_know_is_success(
    build: Any, management: tuple[Management, int], tmp_path: Path
) -> None:
    adapter = build(RUNTIME_PORT=str(management[1]))
    (tmp_path / "x").write_bytes(b"x")
    lay_out(adapter, tmp_path / "x")
    await adapter.unload("m__isvc-1")
    assert not (adapter.folder / "_m__isvc-1.mar").is_symlink()


@pytest.mark.parametrize(("limit", "workers"), [({}, 1), ({"LIMIT_PER_MODEL_CONCURRENCY": "3"}, 3)])
async def test_a_model_has_as_many_workers_as_it_may_have_requests(
    build: Any, management: tuple[Management, int], tmp_path: Path, limit: dict[str, str], workers: int
) -> None:
    adapter = build(RUNTIME_PORT=str(management[1]), REQUEST_BATCH_SIZE="8", **limit)
    await adapter.load(Model("m__isvc-1", "pytorch-mar", tmp_path / "x"))
    assert management[0].registered == [
        RegisterModelRequest(
            model_name="m__isvc-1",
            url="_m__isvc-1.mar",
            synchronous=True,
            initial_workers=workers,
            batch_size=8,
        )
    ]

"""The OpenVINO adapter: layouts, and model management with a stand-in for the server."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from adapters.errors import InvalidModelError
from adapters.ovms import OpenVINOAdapter
from adapters.sdk import Model
from tests.adapters.ovms_stand_in import OvmsStandIn

EMPTY = {"model_config_list": []}


@pytest.mark.parametrize(
    ("model_type", "files", "path", "link", "target"),
    [
        ("onnx", ["mymodel.data"], "mymodel.data", "1/model.onnx", "mymodel.data"),
        ("openvino_ir", ["net.xml"], "net.xml", "1/net.xml", "net.xml"),
        ("onnx", ["my_model/2/x", "my_model/6/x"], "my_model", "6", "my_model/6"),
        ("openvino_ir", ["m/net.xml", "m/net.bin", "m/mapping_config.json"], "m", "1", "m"),
        ("openvino_ir", ["m/2/net.xml"], "m/2", "1", "m/2"),
    ],
)
def test_files_are_linked_as_one_version(
    tmp_path: Path, model_type: str, files: list[str], path: str, link: str, target: str
) -> None:
    for name in files:
        (tmp_path / "s" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "s" / name).write_text("")
    folder = tmp_path / "m__isvc-1"
    folder.mkdir()
    OpenVINOAdapter.__new__(OpenVINOAdapter).lay_out(
        Model("m__isvc-1", model_type, tmp_path / "s" / path), folder
    )
    links = {
        str(each.relative_to(folder)): each.readlink() for each in folder.rglob("*") if each.is_symlink()
    }
    assert links == {link: tmp_path / "s" / target}


def test_nothing_at_the_path_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="there is nothing at"):
        OpenVINOAdapter.__new__(OpenVINOAdapter).lay_out(Model("m", "onnx", tmp_path / "absent"), tmp_path)


# ---------------------------------------------------------------- with the stand-in


@pytest.fixture
async def ovms(tmp_path: Path, unused_tcp_port: int) -> AsyncIterator[tuple[OvmsStandIn, int]]:
    """A stand-in that has an old model in its configuration, as after a crash of the adapter."""
    root = tmp_path / "models"
    (root / "old" / "1").mkdir(parents=True)
    config = root / "model_config_list.json"
    old = {"config": {"name": "old", "base_path": str(root / "old")}}
    config.write_text(json.dumps({"model_config_list": [old]}))
    server = OvmsStandIn(config)
    await server.start(unused_tcp_port)
    yield server, unused_tcp_port
    await server.kill()


@pytest.fixture
async def adapter(
    ovms: tuple[OvmsStandIn, int], run_adapter: Callable[..., Any], tmp_path: Path
) -> AsyncIterator[Any]:
    assert ovms[0].status["old"]["model_version_status"][1]["state"] == "AVAILABLE"
    async with run_adapter(OpenVINOAdapter, tmp_path, server_port=ovms[1]) as running:
        await running.mesh.ready()
        yield running


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A good and a bad model, on disk: without a puller, paths are local."""
    for name, files in (("good", ["net.xml", "net.bin"]), ("bad", ["bad"])):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_bytes(b"x" * 100)
    return tmp_path


def config(adapter: Any) -> Any:
    return json.loads((adapter.settings.root / "model_config_list.json").read_text())


def load(adapter: Any, model_id: str, path: Path) -> Any:
    return adapter.mesh.load(model_id, str(path), model_type={"name": "openvino_ir"})


async def test_the_purge_ends_old_models_and_leaves_a_configuration(adapter: Any, ovms: Any) -> None:
    assert ovms[0].status["old"]["model_version_status"][1]["state"] == "END"
    assert config(adapter) == EMPTY


async def test_a_model_is_available_when_the_load_answers_and_gone_when_the_unload_does(
    adapter: Any, ovms: Any, stored: Path
) -> None:
    await load(adapter, "m", stored / "good")
    assert config(adapter)["model_config_list"][0]["config"]["name"] == "m"
    ovms[0].unload_delay = 3
    await adapter.mesh.unload("m")
    assert {each["state"] for each in ovms[0].status["m"]["model_version_status"]} == {"END"}
    assert config(adapter) == EMPTY
    await load(adapter, "m", stored / "good")  # behind a version that has ended


async def test_a_bad_model_says_why_and_does_not_disturb_its_neighbours(
    adapter: Any, ovms: Any, stored: Path
) -> None:
    await load(adapter, "good", stored / "good")
    with pytest.raises(aio.AioRpcError) as raised:
        await load(adapter, "bad", stored / "bad")
    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "LOADING_FAILED cannot compile" in (raised.value.details() or "")
    assert ovms[0].reloads[-1] == ["good"]
    await load(adapter, "other", stored / "good")


async def test_loads_that_arrive_during_a_reload_go_into_the_next_one_together(
    adapter: Any, ovms: Any, stored: Path
) -> None:
    before = len(ovms[0].reloads)
    ovms[0].gate.clear()
    calls = [asyncio.ensure_future(load(adapter, f"m{number}", stored / "good")) for number in range(20)]
    async with asyncio.timeout(10):
        while len(adapter.server._wanted) < 20:  # noqa: ASYNC110 - the state of another task
            await asyncio.sleep(0.01)
    ovms[0].gate.set()
    await asyncio.gather(*calls)
    assert len(ovms[0].reloads) - before <= 3
    assert len(ovms[0].reloads[-1]) == 20


@pytest.mark.parametrize("cancel", [True, False])
async def test_a_load_that_is_given_up_during_a_reload_is_undone(
    adapter: Any, ovms: Any, stored: Path, *, cancel: bool
) -> None:
    ovms[0].gate.clear()
    call = load(adapter, "m", stored / "good")
    other = asyncio.ensure_future(load(adapter, "other", stored / "good"))
    async with asyncio.timeout(10):
        while len(adapter.server._wanted) < 2:  # noqa: ASYNC110 - the state of another task
            await asyncio.sleep(0.01)
    if cancel:
        call.cancel()
    unload = asyncio.create_task(adapter.mesh.unload("m"))
    await adapter.mesh.status()
    ovms[0].gate.set()
    await asyncio.gather(unload, other)
    if not cancel:
        with pytest.raises(aio.AioRpcError) as raised:
            await call
        assert raised.value.code() is grpc.StatusCode.ABORTED
    assert [item["config"]["name"] for item in config(adapter)["model_config_list"]] == ["other"]
    assert {each["state"] for each in ovms[0].status["m"]["model_version_status"]} == {"END"}


async def test_a_server_that_died_comes_back_empty(adapter: Any, ovms: Any, stored: Path) -> None:
    server, port = ovms
    await load(adapter, "m", stored / "good")
    await server.kill()
    async with asyncio.timeout(20):
        while (await adapter.mesh.status()).status != 0:  # noqa: ASYNC110 - the SPI is polled
            await asyncio.sleep(0.02)
    await server.start(port)  # with what the file says
    await adapter.mesh.ready()
    assert config(adapter) == EMPTY
    assert server.status["m"]["model_version_status"][1]["state"] == "END"

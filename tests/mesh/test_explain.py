"""Why things are as they are, for those who ask."""

import asyncio
import importlib

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError
from msgspec.structs import replace

from api.proto.model_mesh_pb2 import (
    ExplainInstanceRequest,
    ExplainMeshRequest,
    ExplainModelRequest,
    ModelExplanation,
    ModelPolicy,
)
from mesh import command
from mesh.cache import Plan
from mesh.constraints import Requirement, TypeConstraints
from modelmesh.__main__ import SUBCOMMANDS
from store.records import NOTHING
from tests.mesh.conftest import Instance, Mesh
from tests.mesh.test_node import register
from tests.mesh.test_scaler import loaded
from tests.mesh.test_vmodels import set_vmodel
from tests.store.waiting import until


async def explained(instance: Instance, name: str = "m") -> ModelExplanation:
    answer: ModelExplanation = await instance.api.explainModel(ExplainModelRequest(name=name))
    return answer


async def test_where_a_loaded_model_is_and_why(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await loaded(one, "m")
    await until(lambda: "m" in two.bytes.models)
    for instance in (one, two):
        answer = await explained(instance)
        assert answer.summary.startswith("m is loaded on one (since 20")
        assert answer.summary.endswith("this instance has room")
        assert [(event.location, event.what) for event in answer.events] == [
            ("one", "placed here"),
            ("one", "loaded"),
        ]
        assert (answer.modelId, answer.size, answer.remedy) == ("m", 1_000, "")


async def test_why_a_model_was_evicted_and_where_it_would_go(mesh: Mesh) -> None:
    one = await mesh.add("one")
    await loaded(one, "m", "SIZE_9000_0_0")
    mesh.clock.ahead_ms += 1_000
    await loaded(one, "other", "SIZE_9000_0_0")
    answer = await explained(one)
    assert "m is not loaded; unloaded on one at 20" in answer.summary
    assert "it was unused for longest, and others needed the memory" in answer.summary
    assert answer.summary.endswith("a request would load it on one")
    assert answer.placement == "one"
    assert answer.remedy == "nothing: a request loads it, and what was unused for longest makes room"


async def test_what_would_have_to_change_where_a_model_cannot_be_loaded(mesh: Mesh) -> None:
    mesh.constraints = TypeConstraints({"gpu": Requirement(required=("gpu", "large"))})
    one = await mesh.add("one")
    await register(one, "nowhere", type_="gpu")
    assert (await explained(one, "nowhere")).remedy == (
        "run a server with the labels gpu, large, or change what type gpu needs"
    )
    await register(one, "m")
    await one.node.registry.update(
        "m", lambda record: record and replace(record, size=type(one.node.loader.cache.capacity)(99 << 20))
    )
    answer = await explained(one)
    assert answer.reason == "no instance is large enough for the model"
    assert answer.remedy == "give an instance 99.0 MiB; the largest has 0.0 MiB"
    await register(one, "broken", "FAIL_no such file")
    with pytest.raises(Exception, match="no such file"):
        await one.bytes.request("broken")
    answer = await explained(one, "broken")
    assert [event.why for event in answer.events if event.what == "not loaded"] == [
        "FAILED_PRECONDITION: no such file"
    ]
    assert "broken cannot be loaded" in answer.summary


async def test_a_vmodel_is_explained_by_its_model_and_an_unknown_name_is_said_to_be_one(mesh: Mesh) -> None:
    one = await mesh.add("one")
    await set_vmodel(one, "m1", sync=True)
    answer = await explained(one, "v")
    assert (answer.modelId, answer.vModelId) == ("m1", "v")
    with pytest.raises(AioRpcError) as caught:
        await explained(one, "nobody")
    assert caught.value.code() is StatusCode.NOT_FOUND


async def test_an_instance_tells_what_it_holds_in_the_order_of_eviction(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    for name in ("a", "b", "c"):
        mesh.clock.ahead_ms += 1_000
        await loaded(one, name)
    for name, policy in (("a", ModelPolicy(pinned=True)), ("b", ModelPolicy(priority=5))):
        await register(one, name, policy=policy)
    answer = await two.api.explainInstance(ExplainInstanceRequest(instanceId="one"))
    assert [model.modelId for model in answer.models] == ["c", "b", "a"]
    assert (answer.instance.used, answer.instance.capacity) == (3_000, 10_000)
    assert answer.instance.leader
    with pytest.raises(AioRpcError, match="there is no instance three; those that there are: one, two"):
        await one.api.explainInstance(ExplainInstanceRequest(instanceId="three"))


async def test_an_instance_that_does_not_answer_holds_nobody_up(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    await loaded(one, "m")
    await two.bytes.stop(0)
    assert (await explained(one)).summary.startswith("m is loaded on one")
    with pytest.raises(AioRpcError) as caught:
        await one.api.explainInstance(ExplainInstanceRequest(instanceId="two"))
    assert caught.value.code() is StatusCode.UNAVAILABLE


async def test_the_commands_print_what_the_mesh_says(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    one = await mesh.add("one")
    await loaded(one, "m")
    target = ["--target", f"127.0.0.1:{one.port}"]

    async def run(name: str, *arguments: str) -> tuple[int, str]:
        main = importlib.import_module(SUBCOMMANDS[name].module).main
        status = await asyncio.to_thread(main, [*arguments, *target])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    status, text = await run("explain", "model", "m")
    assert status == 0
    assert "m is loaded on one" in text
    assert "one  loaded: a request waited" in text
    status, text = await run("explain", "instance")
    assert status == 0
    assert "m  " in text
    status, text = await run("top", "--once")
    assert status == 0
    assert ("1 models registered, 1 loaded, 0 with a failure; 0 vmodels") in text
    status, text = await run("explain", "model", "nobody")
    assert (status, "NOT_FOUND: model not found: nobody" in text) == (1, True)
    answer = await one.api.explainMesh(ExplainMeshRequest())
    assert "leader" in command.mesh_text(answer, mesh.clock() / 1000)


async def test_an_instance_may_hold_more_than_fits_into_a_usual_answer(
    mesh: Mesh, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    for number in range(5_000):
        two.node.loader.cache.admit(Plan(f"{'m' * 1_000}{number}", NOTHING, number))
    arguments = ["instance", "two", "--target", f"127.0.0.1:{one.port}"]
    assert await asyncio.to_thread(command.explain, arguments) == 0
    assert len(capsys.readouterr().out) > 5 << 20


@pytest.mark.parametrize("seconds", ["-1", "0", "nan", "1e9"])
def test_top_refuses_times_between_looks_that_are_none(
    capsys: pytest.CaptureFixture[str], seconds: str
) -> None:
    with pytest.raises(SystemExit):
        command.top([f"--seconds={seconds}"])
    assert "--seconds: " in capsys.readouterr().err

"""Models of the settings are there, and loaded where they must be, before the instance is ready."""

import json
from pathlib import Path
from typing import Any

import pytest

from mesh.errors import ConfigError, ModelExistsError, StartError
from mesh.static_models import read_static_models, register_static_models
from tests.mesh.conftest import Instance, Mesh
from tests.store.waiting import until


def model(name: str = "m", path: str = "SIZE_1000_0_0", **fields: Any) -> dict[str, Any]:
    return {"modelId": name, "modelInfo": {"type": "t", "path": path}} | fields


async def register(instance: Instance, *models: dict[str, Any]) -> None:
    node = instance.node
    await register_static_models(
        read_static_models(json.dumps(models), None), node.models, node.vmodels, node.status
    )


def test_both_sources_count(tmp_path: Path) -> None:
    (tmp_path / "models.json").write_text(json.dumps([model("b", ensureLoaded=True)]))
    models = read_static_models(json.dumps([model("a", vModelId="v")]), tmp_path / "models.json")
    assert [(one.model_id, one.v_model_id, one.ensure_loaded) for one in models] == [
        ("a", "v", False),
        ("b", "", True),
    ]
    assert read_static_models("", None) == ()


@pytest.mark.parametrize(
    "raw",
    [
        "{",
        "{}",
        '[{"modelId": "m"}]',
        '[{"modelId": "", "modelInfo": {"type": "t"}}]',
        '[{"modelId": "m", "modelInfo": {"type": ""}}]',
        '[{"modelId": "m", "modelInfo": {"type": "t"}, "ensureLoad": true}]',
    ],
)
def test_what_cannot_be_used_is_refused(raw: str) -> None:
    with pytest.raises(ConfigError, match="models to register"):
        read_static_models(raw, None)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.json"):
        read_static_models("", tmp_path / "nowhere.json")


async def test_models_are_registered_and_only_those_that_must_be_are_loaded(mesh: Mesh) -> None:
    one = await mesh.add()
    await register(one, model("a"), model("b", ensureLoaded=True), model("c", vModelId="v"))
    assert one.runtime.loads == ["b"]
    assert await one.bytes.request("v", alias=True)
    assert one.runtime.loads == ["b", "c"]


async def test_registering_again_is_success(mesh: Mesh) -> None:
    one, two = await mesh.add("one"), await mesh.add("two")
    for instance in (one, two):
        await register(instance, model("a", ensureLoaded=True), model("b", vModelId="v"))
    record = two.node.registry.peek("b")
    assert record is not None
    assert record.refs == 1
    with pytest.raises(ModelExistsError):
        await register(one, model("a", "other"))


@pytest.mark.parametrize("retained", [True, False])
async def test_a_model_that_is_not_retained_goes_when_its_vmodel_moves(mesh: Mesh, retained: bool) -> None:  # noqa: FBT001
    one = await mesh.add()
    await register(one, model("m1", vModelId="v", retainAfterTransition=retained))
    await register(one, model("m2", vModelId="v", ensureLoaded=True))
    assert (one.node.registry.peek("m1") is not None) is retained


async def test_a_model_that_must_be_loaded_and_cannot_ends_the_start(mesh: Mesh) -> None:
    one = await mesh.add()
    with pytest.raises(StartError, match=r"model bad, which must be loaded .*: FAILED_PRECONDITION: broken"):
        await register(one, model("bad", "FAIL_broken", ensureLoaded=True))


async def test_an_instance_is_ready_only_when_it_is_released(mesh: Mesh) -> None:
    one = await mesh.add()
    assert one.node.readiness
    one.node.readiness.hold()
    await one.runtime.crash()
    await one.node.guard.suspect()
    await one.runtime.start()
    await until(lambda: one.node.guard.terms is not None)
    assert not one.node.readiness
    assert not one.bytes.ready
    one.node.readiness.release()
    assert one.node.readiness
    assert one.bytes.ready

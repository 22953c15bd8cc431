"""What an instance measures, beside what the tests of its parts say."""

import asyncio

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from mesh import loading
from tests.mesh.conftest import Instance, Mesh
from tests.mesh.fake_bytes import Failed
from tests.mesh.fake_runtime import FakeRuntime
from tests.mesh.test_node import failure, register
from tests.store.waiting import until


def value(instance: Instance, series: str, **labels: str) -> float:
    """One series of an instance's metrics; 0 where it is not there."""
    families = text_string_to_metric_families(instance.node.metrics.text())
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == series and sample.labels == labels
    )


async def test_loads_and_evictions_are_timed(mesh: Mesh) -> None:
    one = await mesh.add(runtime=FakeRuntime(capacity=2_000))
    for name in ("a", "b"):
        await register(one, name, "SIZE_1500_30_30")
    await one.bytes.request("a")
    mesh.clock.ahead_ms = 3_600_000
    await one.bytes.request("b")
    assert value(one, "modelmesh_loading_queue_delay_milliseconds_count") == 2
    assert value(one, "modelmesh_loading_queue_delay_milliseconds_sum") >= 30, "it waited for a's memory"
    assert value(one, "modelmesh_unloadmodel_milliseconds_count") == 1
    assert value(one, "modelmesh_unloadmodel_milliseconds_sum") >= 30
    assert value(one, "modelmesh_age_at_eviction_milliseconds_count") == 1
    assert value(one, "modelmesh_age_at_eviction_milliseconds_bucket", le="900000.0") == 0
    assert value(one, "modelmesh_age_at_eviction_milliseconds_bucket", le="1.44e+07") == 1


async def test_a_deleted_model_is_no_eviction(mesh: Mesh) -> None:
    one = await mesh.add()
    await register(one, "m")
    await one.bytes.request("m")
    one.node.loader.unload("m", why="test")
    await until(lambda: value(one, "modelmesh_unloadmodel_milliseconds_count") == 1)
    assert value(one, "modelmesh_age_at_eviction_milliseconds_count") == 0


async def test_unloads_that_fail_are_counted(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    one = await mesh.add()
    await register(one, "m")
    await one.bytes.request("m")
    one.runtime.stuck.add("m")
    monkeypatch.setattr(loading, "UNLOAD_PATIENCE", 1)
    one.node.loader.unload("m", why="test")
    await until(lambda: value(one, "modelmesh_unloadmodel_failure_total") == 1)
    assert value(one, "modelmesh_unloadmodel_attempt_failure_total") == 1
    assert value(one, "modelmesh_unloadmodel_milliseconds_count") == 0


async def test_refused_loads_are_counted_by_reason_from_zero(mesh: Mesh) -> None:
    one = await mesh.add(runtime=FakeRuntime(capacity=2_000))
    assert 'modelmesh_refused_loads_total{reason="TOO_LARGE"} 0.0' in one.node.metrics.text()
    await register(one, "m", "SIZE_3000_0_0")
    await failure(one, "m")
    assert value(one, "modelmesh_refused_loads_total", reason="TOO_LARGE") >= 1


async def test_loads_that_fail_elsewhere_are_counted_by_code(mesh: Mesh) -> None:
    one = await mesh.add("one")
    await mesh.add("two")
    await register(one, "m", "FAIL_broken")
    with pytest.raises(Failed, match="broken"):
        await one.bytes.request("m", excluded=["one"])
    assert value(one, "modelmesh_peer_load_failures_total", code="FAILED_PRECONDITION") == 1


async def test_measuring_a_model_is_timed(mesh: Mesh) -> None:
    one = await mesh.add()
    await register(one, "m", "SIZE_0_0_0")
    await one.bytes.request("m")
    assert value(one, "modelmesh_model_sizing_milliseconds_count") == 1


async def test_what_an_instance_knows_of_itself_is_shown(mesh: Mesh) -> None:
    one = await mesh.add("one", FakeRuntime())
    await mesh.add("two")
    gate = one.runtime.gates["m"] = asyncio.Event()
    await register(one, "m")
    load = asyncio.create_task(one.node.ensurer.load_here("m", last_used=1, urgent=True))
    await until(lambda: value(one, "modelmesh_pending_loads") == 1)
    assert value(one, "modelmesh_instances") == 2
    assert value(one, "modelmesh_instance_ready") == 1
    assert value(one, "modelmesh_runtime_ready") == 1
    gate.set()
    await load
    await one.runtime.crash()
    await until(lambda: value(one, "modelmesh_runtime_ready") == 0)
    await until(lambda: value(one, "modelmesh_instance_ready") == 0)


async def test_the_registry_s_answers_are_timed_and_its_silence_shows(mesh: Mesh) -> None:
    one = await mesh.add()
    await register(one, "m")
    await one.bytes.request("m")
    await one.node.registry.settled()
    assert value(one, "modelmesh_registry_write_milliseconds_count") >= 1
    assert value(one, "modelmesh_registry_write_failures_total") == 0
    mesh.store.set_available(False)
    one.node.registry.post("m", lambda record: record and replace(record, last_used=7))
    await until(lambda: value(one, "modelmesh_registry_write_failures_total") == 1)
    await until(lambda: value(one, "modelmesh_registry_silence_seconds") > 1)
    mesh.store.set_available(True)

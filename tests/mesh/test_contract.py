"""What the controller makes of the mesh's answers: both sides of their contract in one process."""

from datetime import UTC, datetime
from typing import Any

from api.proto.model_mesh_pb2 import VModelStatusInfo
from controller import status as controller
from controller.status import ModelStatus, Reason, State, Support, Transition, Urls
from mesh.constraints import Requirement, TypeConstraints
from mesh.errors import NoHomeError
from tests.mesh.conftest import Instance, Mesh
from tests.mesh.test_vmodels import get, set_vmodel
from tests.store.waiting import until

NOW = datetime(2026, 1, 1, tzinfo=UTC)
UNSUPPORTED = Support(exists=False, message="none of them")


def seen(info: VModelStatusInfo, previous: ModelStatus | None = None, **support: Any) -> ModelStatus:
    return controller.updated(previous or ModelStatus(), info, Support(**support), Urls(), NOW)


async def seen_of(instance: Instance) -> ModelStatus:
    return seen(await get(instance))


def test_both_sides_know_the_same_text() -> None:
    assert controller._NO_HOME == NoHomeError.PREFIX


async def test_a_new_model_is_loading_then_loaded(mesh: Mesh) -> None:
    one = await mesh.add()
    status = seen(await set_vmodel(one, "m1", "SIZE_1000_20_0"))
    assert (status.active, status.available, status.failure) == (State.LOADING, True, None)

    async def loaded() -> bool:
        return (await seen_of(one)).active is State.LOADED

    await until(loaded)
    status = await seen_of(one)
    assert (status.available, status.target, status.transition) == (True, State.NONE, Transition.UP_TO_DATE)
    assert (status.failed_copies, status.total_copies) == (0, 1)


async def test_a_model_that_is_to_be_loaded_on_demand_stands_by(mesh: Mesh) -> None:
    one = await mesh.add()
    status = seen(await set_vmodel(one, "m1", loadNow=False))
    assert (status.active, status.available) == (State.STANDBY, True)


async def test_a_model_that_cannot_be_loaded_has_failed_with_place_time_and_reason(mesh: Mesh) -> None:
    one = await mesh.add()
    status = seen(await set_vmodel(one, "m1", "CODE_NOT_FOUND:no object x in bucket y", sync=True))
    assert (status.active, status.available) == (State.FAILED, False)
    failure = status.failure
    assert failure is not None
    assert (failure.reason, failure.message, failure.model_id, failure.location) == (
        Reason.LOAD_FAILED,
        "NOT_FOUND: no object x in bucket y",
        "m1",
        "one",
    )
    assert failure.time is not None
    assert (status.failed_copies, status.total_copies) == (1, 1)


async def test_a_failing_update_leaves_the_old_model_available(mesh: Mesh) -> None:
    one = await mesh.add()
    await set_vmodel(one, "m1", sync=True)
    status = seen(await set_vmodel(one, "m2", "FAIL_broken", sync=True))
    assert (status.active, status.target) == (State.LOADED, State.FAILED)
    assert (status.available, status.transition) == (True, Transition.BLOCKED)
    assert status.failure is not None
    assert status.failure.message == "FAILED_PRECONDITION: broken"
    status = seen(await set_vmodel(one, "m3", sync=True), status)
    assert (status.active, status.target, status.transition, status.failure) == (
        State.LOADED,
        State.NONE,
        Transition.UP_TO_DATE,
        None,
    )


async def test_an_update_under_way_is_in_progress(mesh: Mesh) -> None:
    one = await mesh.add()
    await set_vmodel(one, "m1", sync=True)
    status = seen(await set_vmodel(one, "m2", "SIZE_1000_200_0"))
    assert (status.active, status.target, status.transition) == (
        State.LOADED,
        State.LOADING,
        Transition.IN_PROGRESS,
    )


async def test_a_model_without_a_running_instance_waits_and_one_without_a_runtime_has_failed(
    mesh: Mesh,
) -> None:
    mesh.constraints = TypeConstraints(
        {"t": Requirement(required=("mt:t",)), "_default": Requirement(required=("_no_runtime",))}
    )
    one = await mesh.add(MM_LABELS="mt:other")
    status = seen(info := await set_vmodel(one, "m1"))
    assert (status.active, status.available, status.waits_for_runtime) == (State.LOADING, False, True)
    status = controller.updated(ModelStatus(), info, UNSUPPORTED, Urls(), NOW)
    assert (status.active, status.available) == (State.FAILED, False)
    assert status.failure is not None
    assert (status.failure.reason, status.failure.message) == (Reason.NO_SUPPORTING_RUNTIME, "none of them")


async def test_an_unknown_vmodel_changes_nothing(mesh: Mesh) -> None:
    one = await mesh.add()
    previous = ModelStatus(active=State.LOADED, transition=Transition.IN_PROGRESS)
    assert seen(await get(one), previous).transition is Transition.IN_PROGRESS

"""The status table: previous status and the mesh's answer to the next status."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from api.proto.model_mesh_pb2 import ModelStatusInfo, VModelStatusInfo
from controller import status as machine
from controller.status import Failure, ModelStatus, Observation, Reason, State, Support, Transition, Urls

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
URLS = Urls("grpc://s.ns:8033", "http://s.ns:8008")
SUPPORTED = Support()
UNSUPPORTED = Support(exists=False, message="No ServingRuntime supports …")
UNKNOWN_RUNTIME = Support(
    exists=False,
    reason=Reason.RUNTIME_NOT_RECOGNIZED,
    message="Specified runtime name not recognized: r",
)
NO_HOME = "There are no running instances that meet the label requirements of type "

NOT_FOUND = ModelStatusInfo(status=ModelStatusInfo.NOT_FOUND)
UNKNOWN = ModelStatusInfo(status=ModelStatusInfo.UNKNOWN)
NOT_LOADED = ModelStatusInfo(status=ModelStatusInfo.NOT_LOADED)
LOADING = ModelStatusInfo(status=ModelStatusInfo.LOADING)
LOADED = ModelStatusInfo(status=ModelStatusInfo.LOADED)


def _failed(error: str, *copies: tuple[str, int]) -> ModelStatusInfo:
    return ModelStatusInfo(
        status=ModelStatusInfo.LOADING_FAILED,
        errors=[error],
        modelCopyInfos=[
            ModelStatusInfo.ModelCopyInfo(
                location=location,
                copyStatus=ModelStatusInfo.LOADING_FAILED,
                time=time,
            )
            for location, time in copies
        ],
    )


def _answer(
    active: ModelStatusInfo | None,
    target: ModelStatusInfo | None = None,
    status: "VModelStatusInfo.VModelStatus.ValueType" = VModelStatusInfo.DEFINED,
) -> VModelStatusInfo:
    return VModelStatusInfo(
        status=status,
        activeModelId="a",
        targetModelId="a" if target is None else "t",
        activeModelStatus=active,
        targetModelStatus=target,
    )


def _update(
    previous: ModelStatus,
    info: VModelStatusInfo,
    support: Support = SUPPORTED,
    now: datetime = NOW,
) -> ModelStatus:
    return machine.updated(previous, info, support, URLS, now)


@pytest.mark.parametrize(
    ("info", "support", "expected"),
    [
        (None, SUPPORTED, Observation(State.PENDING)),
        (NOT_LOADED, SUPPORTED, Observation(State.STANDBY)),
        (LOADING, SUPPORTED, Observation(State.LOADING)),
        (LOADED, SUPPORTED, Observation(State.LOADED)),
        (
            ModelStatusInfo(status=ModelStatusInfo.LOADING, errors=["first", "second"]),
            SUPPORTED,
            Observation(State.LOADING, Reason.LOAD_FAILED, "first"),
        ),
        (
            ModelStatusInfo(status=ModelStatusInfo.LOADED, errors=["first"]),
            SUPPORTED,
            Observation(State.LOADED, Reason.LOAD_FAILED, "first"),
        ),
        (
            ModelStatusInfo(status=ModelStatusInfo.NOT_LOADED, errors=["first"]),
            SUPPORTED,
            Observation(State.STANDBY, Reason.LOAD_FAILED, "first"),
        ),
        (_failed("boom"), SUPPORTED, Observation(State.FAILED, Reason.LOAD_FAILED, "boom")),
        (
            ModelStatusInfo(status=ModelStatusInfo.LOADING_FAILED),
            SUPPORTED,
            Observation(State.FAILED, Reason.LOAD_FAILED, ""),
        ),
        (
            _failed(NO_HOME + "mt:x: [mt:x]"),
            SUPPORTED,
            Observation(
                State.LOADING,
                Reason.RUNTIME_UNHEALTHY,
                "Waiting for supporting runtime Pod to become available",
            ),
        ),
        (
            _failed(NO_HOME + "mt:x: [_no_runtime]"),
            UNSUPPORTED,
            Observation(State.FAILED, Reason.NO_SUPPORTING_RUNTIME, UNSUPPORTED.message),
        ),
        (
            _failed(NO_HOME + "rt:r: [_no_runtime]"),
            UNKNOWN_RUNTIME,
            Observation(State.FAILED, Reason.RUNTIME_NOT_RECOGNIZED, UNKNOWN_RUNTIME.message),
        ),
        (
            # The runtime was added a moment ago: its constraints have not reached the pods.
            _failed(NO_HOME + "mt:x: [_no_runtime]"),
            SUPPORTED,
            Observation(
                State.LOADING,
                Reason.RUNTIME_UNHEALTHY,
                "Waiting for supporting runtime Pod to become available",
            ),
        ),
        (NOT_FOUND, SUPPORTED, Observation(None)),
        (UNKNOWN, SUPPORTED, Observation(None)),
    ],
)
def test_what_the_mesh_says_of_one_model(
    info: ModelStatusInfo | None,
    support: Support,
    expected: Observation,
) -> None:
    assert machine.observe(info, support) == expected


@pytest.mark.parametrize(
    ("previous", "expected"),
    [
        (ModelStatus(), True),
        (ModelStatus(active=State.FAILED), True),
        (ModelStatus(active=State.LOADED), False),
        (ModelStatus(active=State.STANDBY), False),
        (ModelStatus(active=State.LOADED, target=State.LOADING), True),
        (ModelStatus(active=State.LOADING), False),
        (ModelStatus(active=State.LOADING, failure=Failure(Reason.RUNTIME_UNHEALTHY)), True),
        (ModelStatus(active=State.LOADED, failure=Failure(Reason.RUNTIME_UNHEALTHY)), True),
        (ModelStatus(active=State.STANDBY, failure=Failure(Reason.RUNTIME_UNHEALTHY)), True),
        (ModelStatus(active=State.LOADING, failure=Failure(Reason.LOAD_FAILED)), False),
    ],
)
def test_load_now(previous: ModelStatus, expected: bool) -> None:  # noqa: FBT001
    assert machine.load_now(previous) is expected


@pytest.mark.parametrize(
    ("info", "active", "target", "transition", "available"),
    [
        (_answer(NOT_LOADED), State.STANDBY, State.NONE, Transition.UP_TO_DATE, True),
        (_answer(LOADING), State.LOADING, State.NONE, Transition.UP_TO_DATE, True),
        (_answer(LOADED), State.LOADED, State.NONE, Transition.UP_TO_DATE, True),
        (_answer(None), State.PENDING, State.NONE, Transition.UP_TO_DATE, True),
        (_answer(_failed("x")), State.FAILED, State.NONE, Transition.UP_TO_DATE, False),
        (
            _answer(LOADED, LOADING, VModelStatusInfo.TRANSITIONING),
            State.LOADED,
            State.LOADING,
            Transition.IN_PROGRESS,
            True,
        ),
        (
            _answer(LOADED, _failed("x"), VModelStatusInfo.TRANSITION_FAILED),
            State.LOADED,
            State.FAILED,
            Transition.BLOCKED,
            True,
        ),
        (
            _answer(LOADED, LOADING, VModelStatusInfo.TRANSITION_FAILED),
            State.LOADED,
            State.LOADING,
            Transition.IN_PROGRESS,
            True,
        ),
        (
            _answer(LOADED, NOT_FOUND, VModelStatusInfo.TRANSITIONING),
            State.LOADED,
            State.NONE,
            Transition.IN_PROGRESS,
            True,
        ),
    ],
)
def test_states_of_an_answer(
    info: VModelStatusInfo,
    active: State,
    target: State,
    transition: Transition,
    available: bool,  # noqa: FBT001
) -> None:
    status = _update(ModelStatus(), info)
    assert (status.active, status.target, status.transition) == (active, target, transition)
    assert status.available is available
    assert status.urls == URLS


@pytest.mark.parametrize("odd", [VModelStatusInfo.NOT_FOUND, VModelStatusInfo.UNKNOWN])
def test_an_answer_without_a_status_keeps_the_transition(
    odd: "VModelStatusInfo.VModelStatus.ValueType",
) -> None:
    previous = ModelStatus(active=State.LOADED, transition=Transition.BLOCKED)
    status = _update(previous, _answer(UNKNOWN, status=odd))
    assert status.active is State.LOADED
    assert status.transition is Transition.BLOCKED


def test_a_mended_spec_is_no_longer_invalid() -> None:
    previous = machine.invalid(ModelStatus(active=State.LOADED, available=True), "bad", "a")
    status = _update(previous, _answer(LOADED))
    assert status == ModelStatus(available=True, active=State.LOADED, urls=URLS)


def test_a_failed_load_names_place_and_time_of_the_newest_failure() -> None:
    info = _answer(_failed("boom", ("pod-b", 1_767_323_045_123), ("pod-a", 5)))
    status = _update(ModelStatus(), info)
    assert status.failure == Failure(
        Reason.LOAD_FAILED,
        "boom",
        "a",
        "pod-b",
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )
    assert (status.failed_copies, status.total_copies) == (2, 2)


def test_a_failure_without_a_time_has_none() -> None:
    status = _update(ModelStatus(), _answer(_failed("boom", ("pod", 0))))
    assert status.failure == Failure(Reason.LOAD_FAILED, "boom", "a", "pod")


def test_copies_count_in_any_state_and_of_both_models() -> None:
    copies = [
        ModelStatusInfo.ModelCopyInfo(location="p", copyStatus=state)
        for state in (ModelStatusInfo.LOADED, ModelStatusInfo.LOADING, ModelStatusInfo.LOADING_FAILED)
    ]
    active = ModelStatusInfo(status=ModelStatusInfo.LOADED, modelCopyInfos=copies)
    target = ModelStatusInfo(status=ModelStatusInfo.LOADING, modelCopyInfos=copies[:1])
    status = _update(ModelStatus(), _answer(active, target, VModelStatusInfo.TRANSITIONING))
    assert (status.failed_copies, status.total_copies) == (1, 4)


def test_copies_of_the_active_model_alone_count_while_the_target_has_no_runtime() -> None:
    copies = [ModelStatusInfo.ModelCopyInfo(location="p", copyStatus=ModelStatusInfo.LOADED)]
    active = ModelStatusInfo(status=ModelStatusInfo.LOADED, modelCopyInfos=copies)
    target = _failed(NO_HOME + "mt:x: [mt:x]", ("p", 1))
    status = _update(ModelStatus(), _answer(active, target, VModelStatusInfo.TRANSITIONING))
    assert (status.failed_copies, status.total_copies) == (0, 1)


def test_a_vmodel_without_target_has_no_failure() -> None:
    previous = ModelStatus(failure=Failure(Reason.LOAD_FAILED, "boom"))
    assert _update(previous, VModelStatusInfo(status=VModelStatusInfo.DEFINED)).failure is None


@pytest.mark.parametrize(
    ("active", "failure", "expected"),
    [
        (State.NONE, None, False),
        (State.FAILED, None, False),
        (State.PENDING, None, True),
        (State.STANDBY, None, True),
        (State.LOADING, None, True),
        (State.LOADED, None, True),
        (State.LOADED, Failure(Reason.LOAD_FAILED), True),
        (State.LOADED, Failure(Reason.NO_SUPPORTING_RUNTIME), True),
        (State.LOADED, Failure(Reason.RUNTIME_UNHEALTHY), False),
    ],
)
def test_available(active: State, failure: Failure | None, expected: bool) -> None:  # noqa: FBT001
    assert machine.available(active, failure) is expected


def test_what_loads_and_who_could_is_known_at_the_moment() -> None:
    support = Support(runtimes=("a",))
    waiting = _update(ModelStatus(), _answer(_failed(NO_HOME + "mt:x: [mt:x]")), support)
    assert (waiting.loads, waiting.runtimes) == (False, ("a",))
    loading = _update(waiting, _answer(LOADING), support)
    assert (loading.loads, loading.waits_for_runtime) == (True, True)
    lost = machine.unreachable(loading, "a", support, NOW)
    assert (lost.loads, lost.runtimes) == (False, ("a",))


def test_copies_of_a_model_without_runtime_do_not_count() -> None:
    status = _update(ModelStatus(), _answer(_failed(NO_HOME + "mt:x: [mt:x]", ("p", 1))))
    assert (status.failed_copies, status.total_copies) == (0, 0)


def test_waiting_for_a_pod_is_over_when_the_model_is_loaded() -> None:
    waiting = machine.unreachable(ModelStatus(), "a", SUPPORTED, NOW)
    assert waiting.failure == Failure(
        Reason.RUNTIME_UNHEALTHY,
        "Waiting for runtime Pod to become available",
        "a",
    )
    loading = _update(waiting, _answer(LOADING))
    assert loading.failure == waiting.failure
    assert not loading.available
    loaded = _update(loading, _answer(LOADED))
    assert loaded.failure is None
    assert loaded.available


def test_another_failure_is_over_when_loading_starts_again() -> None:
    failed = _update(ModelStatus(), _answer(_failed("boom")))
    assert _update(failed, _answer(LOADING)).failure is None


def test_a_failure_that_lasts_keeps_the_time_it_began() -> None:
    info = _answer(_failed(NO_HOME + "mt:x: [_no_runtime]"))
    first = _update(ModelStatus(), info, UNSUPPORTED)
    assert first.failure is not None
    assert first.failure.time == NOW.replace(microsecond=0)
    assert _update(first, info, UNSUPPORTED, NOW + timedelta(hours=1)) == first
    assert machine.unreachable(first, "a", UNSUPPORTED, NOW + timedelta(hours=2)).failure == first.failure


def test_another_failure_has_a_time_of_its_own() -> None:
    later = NOW + timedelta(seconds=5)
    info = _answer(_failed(NO_HOME + "mt:x: [_no_runtime]"))
    first = _update(ModelStatus(), info, UNSUPPORTED)
    renamed = machine.unreachable(first, "b", UNSUPPORTED, later)
    waiting = _update(first, info, SUPPORTED, later)
    for status in (renamed, waiting):
        assert status.failure is not None
        assert status.failure.time == later.replace(microsecond=0)


def test_lost_pods_leave_states_and_availability() -> None:
    serving = ModelStatus(available=True, active=State.LOADED, total_copies=2, urls=URLS)
    status = machine.unreachable(serving, "a", SUPPORTED, NOW)
    assert replace(status, failure=None) == serving
    assert status.failure is not None
    assert status.failure.time is None


def test_a_new_model_that_no_runtime_supports_fails_without_any_pod() -> None:
    status = machine.unreachable(ModelStatus(), "a", UNSUPPORTED, NOW)
    assert (status.active, status.target, status.transition) == (
        State.FAILED,
        State.NONE,
        Transition.UP_TO_DATE,
    )
    assert not status.available
    assert status.failure == Failure(
        Reason.NO_SUPPORTING_RUNTIME,
        UNSUPPORTED.message,
        "a",
        time=NOW.replace(microsecond=0),
    )


def test_a_runtime_that_was_added_takes_the_failure_back() -> None:
    failed = machine.unreachable(ModelStatus(), "a", UNSUPPORTED, NOW)
    assert machine.unreachable(failed, "a", SUPPORTED, NOW) == machine.unreachable(
        ModelStatus(),
        "a",
        SUPPORTED,
        NOW,
    )


def test_a_mended_spec_is_no_longer_invalid_even_without_pods() -> None:
    invalid = machine.invalid(ModelStatus(), "bad", "a")
    assert machine.unreachable(invalid, "a", SUPPORTED, NOW).transition is Transition.UP_TO_DATE


def test_a_loaded_model_without_runtime_or_pod_is_not_available() -> None:
    serving = ModelStatus(available=True, active=State.LOADED)
    status = machine.unreachable(serving, "a", UNSUPPORTED, NOW)
    assert not status.available
    assert (status.active, status.target, status.transition) == (
        State.LOADED,
        State.FAILED,
        Transition.BLOCKED,
    )


def test_an_invalid_spec_leaves_the_old_model_serving() -> None:
    serving = ModelStatus(available=True, active=State.LOADED)
    status = machine.invalid_refreshed(machine.invalid(serving, "bad", "a"), _answer(NOT_LOADED), URLS)
    assert status.available
    assert status.active is State.STANDBY
    assert status.transition is Transition.INVALID
    assert status.failure == Failure(Reason.INVALID_SPEC, "bad", "a")


def test_an_invalid_spec_that_was_never_registered_is_not_available() -> None:
    status = machine.invalid_refreshed(machine.invalid(ModelStatus(), "bad", ""), VModelStatusInfo(), URLS)
    assert not status.available
    assert status.active is State.PENDING


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (ModelStatus(active=State.LOADED), None),
        (ModelStatus(active=State.FAILED, failure=Failure(Reason.LOAD_FAILED)), None),
        (ModelStatus(active=State.LOADING), 1.0),
        (ModelStatus(active=State.LOADED, target=State.LOADING), 1.0),
        (ModelStatus(active=State.LOADING, failure=Failure(Reason.RUNTIME_UNHEALTHY)), 3.0),
    ],
)
def test_when_to_ask_again(status: ModelStatus, expected: float | None) -> None:
    assert machine.requeue_after(status) == expected

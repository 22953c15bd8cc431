from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.status import Failure, ModelStatus, Reason, State, Transition, Urls
from controller.status_fields import InferenceServiceFields, PredictorFields, StatusFields

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FULL = ModelStatus(
    available=True,
    transition=Transition.BLOCKED,
    active=State.LOADED,
    target=State.FAILED,
    failure=Failure(Reason.LOAD_FAILED, "boom", "m__isvc-1", "pod", NOW),
    failed_copies=1,
    total_copies=2,
    urls=Urls("grpc://s.ns:8033", "http://s.ns:8008"),
)


def _object(status: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"metadata": {"name": "m", "generation": 3}} | ({} if status is None else {"status": status})


@pytest.mark.parametrize("fields", [PredictorFields(), InferenceServiceFields()])
@pytest.mark.parametrize("status", [FULL, ModelStatus()])
def test_reads_what_it_wrote(fields: StatusFields, status: ModelStatus) -> None:
    assert fields.read(_object(fields.write(_object(), status, NOW))) == status


@pytest.mark.parametrize("fields", [PredictorFields(), InferenceServiceFields()])
def test_a_fresh_object_is_pending_and_up_to_date(fields: StatusFields) -> None:
    assert fields.read(_object()) == ModelStatus()


@pytest.mark.parametrize("fields", [PredictorFields(), InferenceServiceFields()])
def test_writing_the_same_later_changes_nothing(fields: StatusFields) -> None:
    first = fields.write(_object(), FULL, NOW)
    assert fields.write(_object(first), FULL, NOW + timedelta(minutes=1)) == first


def test_predictor_status() -> None:
    assert PredictorFields().write(_object(), FULL, NOW) == {
        "available": True,
        "transitionStatus": "BlockedByFailedLoad",
        "activeModelState": "Loaded",
        "targetModelState": "FailedToLoad",
        "lastFailureInfo": {
            "reason": "ModelLoadFailed",
            "message": "boom",
            "location": "pod",
            "modelId": "m__isvc-1",
            "time": "2026-01-02T03:04:05Z",
        },
        "grpcEndpoint": "grpc://s.ns:8033",
        "httpEndpoint": "http://s.ns:8008",
        "failedCopies": 1,
        "totalCopies": 2,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "BlockedByFailedLoad",
                "message": "Serves the previous model; boom (correct the storage or the model files; "
                "loading is tried again)",
                "lastTransitionTime": "2026-01-02T03:04:05Z",
            }
        ],
        "observedGeneration": 3,
    }


def test_inference_service_status() -> None:
    written = InferenceServiceFields().write(
        _object(),
        ModelStatus(available=True, active=State.LOADED, total_copies=1, urls=FULL.urls),
        NOW,
    )
    condition = {
        "status": "True",
        "reason": "Loaded",
        "message": "Model is loaded and serves requests",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }
    assert written == {
        "url": "grpc://s.ns:8033",
        "components": {
            "predictor": {
                "url": "grpc://s.ns:8033",
                "grpcUrl": "grpc://s.ns:8033",
                "restUrl": "http://s.ns:8008",
            },
        },
        "conditions": [{"type": "PredictorReady"} | condition, {"type": "Ready"} | condition],
        "modelStatus": {
            "transitionStatus": "UpToDate",
            "states": {"activeModelState": "Loaded", "targetModelState": ""},
            "copies": {"failedCopies": 0, "totalCopies": 1},
        },
        "observedGeneration": 3,
    }


def test_urls_go_when_the_model_is_not_available() -> None:
    fields = InferenceServiceFields()
    before = fields.write(_object(), FULL, NOW)
    after = fields.write(_object(before), ModelStatus(urls=FULL.urls), NOW)
    assert "url" not in after
    assert "components" not in after


def test_fields_and_conditions_of_others_stay() -> None:
    foreign = {"type": "TransformerReady", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}
    before = {
        "conditions": [foreign],
        "annotations": {"a": "b"},
        "components": {"transformer": {"url": "u"}, "predictor": {"latestReadyRevision": "r"}},
    }
    after = InferenceServiceFields().write(_object(before), FULL, NOW)
    assert [condition["type"] for condition in after["conditions"]] == [
        "PredictorReady",
        "Ready",
        "TransformerReady",
    ]
    assert foreign in after["conditions"]
    assert after["annotations"] == {"a": "b"}
    assert after["components"]["transformer"] == {"url": "u"}
    assert after["components"]["predictor"]["latestReadyRevision"] == "r"


def test_transition_times_move_only_with_the_conditions_status() -> None:
    fields = InferenceServiceFields()
    waiting = ModelStatus(failure=Failure(Reason.RUNTIME_UNHEALTHY, "Waiting"))
    first = fields.write(_object(), waiting, NOW)
    later = fields.write(
        _object(first), ModelStatus(active=State.FAILED, failure=FULL.failure), NOW.replace(hour=4)
    )
    assert later["conditions"][1]["message"].startswith("boom")
    assert later["conditions"][1]["lastTransitionTime"] == "2026-01-02T03:04:05Z"
    ready = fields.write(
        _object(later), ModelStatus(available=True, active=State.LOADED), NOW.replace(hour=5)
    )
    assert ready["conditions"][1]["lastTransitionTime"] == "2026-01-02T05:04:05Z"


def test_a_reason_that_only_kserve_knows_reads_as_none() -> None:
    status = {"modelStatus": {"transitionStatus": "", "lastFailureInfo": {"reason": "RuntimeDisabled"}}}
    assert InferenceServiceFields().read(_object(status)) == ModelStatus()

"""Changing a model in place: the old one answers until the new one is loaded."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self

import pytest

from fvt import models as extra
from fvt.cluster import condition, model_status
from fvt.inference import EIGHT, Inference
from fvt.objects import SKLEARN, XGBOOST, isvc, predictor
from fvt.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from fvt.cluster import JSON, Cluster
    from fvt.models import Bucket

KINDS = pytest.mark.parametrize("kind", ["isvc", "predictor"])
MISSING = "sklearn/missing.joblib"


def make(kind: str, *arguments: Any, **options: Any) -> JSON:
    """Return an InferenceService or a Predictor."""
    return isvc(*arguments, **options) if kind == "isvc" else predictor(*arguments, **options)


class Asking:
    """Asks a digit model again and again, and keeps what it saw."""

    def __init__(self, inference: Inference, model: str) -> None:
        self._inference = inference
        self._model = model
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.concrete: list[str] = []
        self.wrong: list[object] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            try:
                answer = self._inference.infer(self._model, EIGHT)
            except Exception as error:  # noqa: BLE001 -- whatever it is, the case fails with it
                self.wrong.append(error)
                continue
            self.concrete.append(answer.model_name)
            if list(answer.outputs[0].contents.int64_contents) != [8]:
                self.wrong.append(answer)


@KINDS
def test_another_path_takes_over_without_a_lost_request(
    installed: Cluster,
    models: Bucket,
    inference: Inference,
    name: str,
    needs: Callable[[str], None],
    kind: str,
) -> None:
    needs("mlserver")
    assert models
    installed.apply(make(kind, name))
    installed.wait_ready(kind, name)
    old = inference.infer(name, EIGHT).model_name
    with Asking(inference, name) as asking:
        wait(lambda: asking.concrete, "the first answers")
        installed.apply(make(kind, name, path=extra.SECOND))
        installed.wait_ready(kind, name)
        new = inference.infer(name, EIGHT).model_name
        wait(lambda: asking.concrete[-1] == new, "answers of the new model")
    assert asking.wrong == []
    assert set(asking.concrete) == {old, new}
    assert old != new


@KINDS
def test_another_format_takes_over(
    installed: Cluster, inference: Inference, name: str, needs: Callable[[str], None], kind: str
) -> None:
    needs("mlserver")
    installed.apply(make(kind, name))
    installed.wait_ready(kind, name)
    installed.apply(make(kind, name, "xgboost", XGBOOST))
    installed.wait_ready(kind, name)
    answer = inference.rest_row(name, [0.5] * 30)
    assert 0 <= answer.json()["outputs"][0]["data"][0] <= 1


def test_a_runtime_that_is_named_takes_over(
    installed: Cluster, inference: Inference, name: str, needs: Callable[[str], None]
) -> None:
    needs("mlserver")
    installed.apply(isvc(name))
    installed.wait_ready("isvc", name)
    old = inference.infer(name, EIGHT).model_name
    installed.apply(isvc(name, runtime="mlserver-1.x"))
    installed.wait_ready("isvc", name)
    assert inference.digit(name) == 8
    assert inference.infer(name, EIGHT).model_name != old


def test_a_model_of_another_server_takes_over(
    installed: Cluster, models: Bucket, inference: Inference, name: str, needs: Callable[[str], None]
) -> None:
    needs("mlserver")
    needs("triton")
    assert models
    installed.apply(isvc(name))
    installed.wait_ready("isvc", name)
    installed.apply(isvc(name, "onnx", extra.RELU))
    installed.wait_ready("isvc", name)
    assert inference.rest_row(name, [1.0, 2.0, 3.0, 4.0], "x").json()["outputs"][0]["data"] == [60, 70, 80]


@KINDS
def test_a_failing_change_leaves_the_old_model_serving(
    installed: Cluster, inference: Inference, name: str, needs: Callable[[str], None], kind: str
) -> None:
    needs("mlserver")
    installed.apply(make(kind, name))
    installed.wait_ready(kind, name)
    old = inference.infer(name, EIGHT).model_name
    with Asking(inference, name) as asking:
        installed.apply(make(kind, name, path=MISSING))
        failure = installed.wait_failure(kind, name, "ModelLoadFailed")
        assert MISSING in failure["message"]

        def blocked() -> JSON | None:
            states = model_status(installed.status(kind, name))
            assert states["transition"] == "BlockedByFailedLoad", states
            return states

        states = wait(blocked, f"{name} to be BlockedByFailedLoad") or {}
        assert (states["active"], states["target"]) == ("Loaded", "FailedToLoad")
        assert condition(installed.status(kind, name)) == "True"
        wait(lambda: asking.concrete, "answers")
    assert asking.wrong == []
    assert set(asking.concrete) == {old}
    installed.apply(make(kind, name, path=SKLEARN))
    installed.wait_ready(kind, name)
    assert model_status(installed.status(kind, name))["failure"] == {}


def test_a_deleted_model_is_gone(
    installed: Cluster, inference: Inference, name: str, needs: Callable[[str], None]
) -> None:
    needs("mlserver")
    installed.apply(isvc(name))
    installed.wait_ready("isvc", name)
    assert inference.rest_row(name, EIGHT).status_code == 200
    installed.delete("isvc", name)
    wait(lambda: inference.rest_row(name, EIGHT).status_code == 404, f"{name} to be unknown to the mesh")


def test_applying_the_same_again_changes_nothing(
    installed: Cluster, inference: Inference, name: str, needs: Callable[[str], None]
) -> None:
    needs("mlserver")
    installed.apply(isvc(name))
    installed.wait_ready("isvc", name)
    before = installed.get("isvc", name)["metadata"]["resourceVersion"]
    assert installed.apply(isvc(name)).strip().endswith("unchanged")
    assert inference.digit(name) == 8
    assert installed.get("isvc", name)["metadata"]["resourceVersion"] == before

"""What models ask of runtimes, counted as they come and go."""

from dataclasses import replace
from typing import Any

import pytest

from api.v1alpha1 import Predictor
from controller.demand import Demand, Wish
from controller.model_kinds import PREDICTOR

LABELS = {"mt:sklearn", "pv:v2", "rt:ml"}


def _predictor(name: str, model_format: str = "sklearn", claim: str = "", namespace: str = "ns") -> Predictor:
    storage = {"path": "p", "parameters": {"type": "pvc", "name": claim} if claim else {"type": "s3"}}
    spec = {"modelType": {"name": model_format}, "storage": storage}
    return Predictor.parse({"metadata": {"name": name, "namespace": namespace}, "spec": spec})


@pytest.fixture
def demand() -> Demand:
    return Demand()


def test_a_wish_lasts_until_the_last_model_that_has_it_is_gone(demand: Demand) -> None:
    changed = demand.follow(PREDICTOR)
    one, two = _predictor("one"), _predictor("two")
    changed(None, one)
    changed(None, two)
    assert demand.of("ns", LABELS) == [Wish("mt:sklearn")]
    changed(one, None)
    assert demand.of("ns", LABELS) == [Wish("mt:sklearn")]
    changed(two, None)
    assert demand.of("ns", LABELS) == []


def test_a_changed_model_wishes_otherwise(demand: Demand) -> None:
    changed = demand.follow(PREDICTOR)
    changed(None, _predictor("m"))
    changed(_predictor("m"), _predictor("m", claim="claim"))
    assert demand.of("ns", LABELS) == [Wish("mt:sklearn", "claim")]
    changed(_predictor("m", claim="claim"), _predictor("m", "onnx"))
    assert demand.of("ns", LABELS) == []


def test_namespaces_and_labels_are_told_apart(demand: Demand) -> None:
    changed = demand.follow(PREDICTOR)
    changed(None, _predictor("m", namespace="other"))
    changed(None, _predictor("n", "onnx"))
    assert demand.of("ns", LABELS) == []
    assert demand.of("ns", {"mt:onnx"}) == [Wish("mt:onnx")]
    assert demand.of("nowhere", LABELS) == []


def test_models_of_other_systems_ask_for_nothing(demand: Demand) -> None:
    def never(_: Any) -> bool:
        return False

    demand.follow(replace(PREDICTOR, is_ours=never))(None, _predictor("m"))
    assert demand.of("ns", LABELS) == []

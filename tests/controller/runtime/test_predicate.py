from __future__ import annotations

from typing import Any

import pytest

from api.core import ConfigMap
from controller.runtime.predicate import (
    annotations_changed,
    any_of,
    deletion_requested,
    generation_changed,
    labels_changed,
)


def obj(**metadata: Any) -> ConfigMap:
    return ConfigMap.parse({"metadata": {"name": "c"} | metadata})


@pytest.mark.parametrize(
    ("predicate", "change"),
    [
        (generation_changed, {"generation": 2}),
        (labels_changed, {"labels": {"a": "b"}}),
        (annotations_changed, {"annotations": {"a": "b"}}),
        (deletion_requested, {"deletionTimestamp": "2026-01-01T00:00:00Z"}),
    ],
)
def test_a_predicate_answers_to_its_own_kind_of_change_only(predicate: Any, change: dict[str, Any]) -> None:
    assert predicate(obj(), obj(**change))
    assert not predicate(obj(), obj(resourceVersion="2"))
    assert predicate(obj(), None)


@pytest.mark.parametrize("predicate", [generation_changed, labels_changed, annotations_changed])
def test_a_new_object_is_a_change(predicate: Any) -> None:
    assert predicate(None, obj())
    assert not deletion_requested(None, obj())


def test_any_of_several_is_enough() -> None:
    either = any_of(generation_changed, labels_changed)
    assert either(obj(), obj(generation=2))
    assert either(obj(), obj(labels={"a": "b"}))
    assert not either(obj(), obj(annotations={"a": "b"}))

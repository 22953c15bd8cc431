from __future__ import annotations

import pytest

from controller.runtime.apiserver import selectors
from controller.runtime.errors import BadRequest

_OBJECT = {
    "metadata": {"name": "a", "namespace": "ns", "labels": {"app": "web", "tier/x": "1"}},
    "spec": {"nodeName": "n1"},
}


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web,tier/x=1", True),
        ("app=api", False),
        ("app!=api", True),
        ("other!=x", True),
        ("app", True),
        ("!app", False),
        ("!other", True),
        ("app in (web, api)", True),
        ("app notin (web,api)", False),
        ("other notin (web)", True),
        ("app in (api),tier/x", False),
    ],
)
def test_label_selector_selects(selector: str, *, matches: bool) -> None:
    assert selectors.labels(selector)(_OBJECT) is matches


@pytest.mark.parametrize("selector", ["a b", "app in web", "=x", "app=web;x=y"])
def test_label_selector_that_does_not_parse_is_refused(selector: str) -> None:
    with pytest.raises(BadRequest, match="unable to parse"):
        selectors.labels(selector)


def test_field_selector_compares_and_refuses_paths_the_kind_does_not_offer() -> None:
    supported = {"metadata.name", "spec.nodeName"}
    assert selectors.fields("metadata.name=a,spec.nodeName!=n2", supported)(_OBJECT)
    assert not selectors.fields("metadata.name==b", supported)(_OBJECT)
    with pytest.raises(BadRequest, match=r"field label not supported: spec\.x"):
        selectors.fields("spec.x=1", supported)
    with pytest.raises(BadRequest, match="path=value"):
        selectors.fields("spec.nodeName", supported)

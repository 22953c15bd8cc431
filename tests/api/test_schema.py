"""Kubernetes' definitions become schemas that a CRD may have."""

import re

import pytest

from api.core import CRD, DEPLOYMENT, POD
from api.schema import CORE, QUANTITY_PATTERN, ROOTS, definition_of, extract, native, published, structural

SWAGGER = {
    "definitions": {
        CORE + "PodSpec": {
            "description": "prose",
            "type": "object",
            "properties": {
                "description": {"description": "prose", "type": "string"},
                "nested": {"description": "prose", "$ref": "#/definitions/x.Nested"},
                "list": {"type": "array", "items": {"$ref": "#/definitions/x.Item", "description": "prose"}},
                "map": {"type": "object", "additionalProperties": {"$ref": "#/definitions/x.Value"}},
            },
        },
        "x.Nested": {"properties": {"self": {"$ref": "#/definitions/x.Item"}}},
        "x.Item": {"type": "string"},
        "x.Value": {"type": "string"},
        "x.Unused": {"type": "string"},
    }
}


def test_extraction_takes_what_is_referred_to_and_no_prose() -> None:
    document = extract(SWAGGER, "v9", [CORE + "PodSpec"])
    assert "v9" in document["origin"]
    assert "Apache-2.0" in document["license"]
    definitions = document["definitions"]
    assert set(definitions) == {CORE + "PodSpec", "x.Nested", "x.Item", "x.Value"}
    assert "prose" not in str(definitions)
    assert "description" in definitions[CORE + "PodSpec"]["properties"]


def test_a_container_is_whole() -> None:
    container = structural(CORE + "Container")["properties"]
    assert container["env"]["items"]["properties"]["valueFrom"]["properties"]["secretKeyRef"]["required"] == [
        "key"
    ]
    assert container["livenessProbe"]["properties"]["httpGet"]["properties"]["port"] == {
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "x-kubernetes-int-or-string": True,
    }
    assert (
        container["resources"]["properties"]["limits"]["additionalProperties"]["pattern"] == QUANTITY_PATTERN
    )


def test_keys_of_keyed_lists_have_a_value() -> None:
    ports = structural(CORE + "Container")["properties"]["ports"]
    assert ports["x-kubernetes-list-map-keys"] == ["containerPort", "protocol"]
    assert ports["items"]["properties"]["protocol"]["default"] == "TCP"


@pytest.mark.parametrize("name", ["env", "envFrom", "command"])
def test_lists_in_which_pods_allow_duplicates_are_not_keyed(name: str) -> None:
    assert "x-kubernetes-list-type" not in structural(CORE + "Container")["properties"][name]


def test_each_use_of_a_definition_is_its_own_copy() -> None:
    structural(CORE + "Container")["properties"].clear()
    assert structural(CORE + "Container")["properties"]


def test_a_built_in_kind_has_its_definition() -> None:
    assert definition_of(POD) == CORE + "Pod"
    assert definition_of(DEPLOYMENT) == "io.k8s.api.apps.v1.Deployment"
    assert not definition_of(CRD)


@pytest.mark.parametrize("name", ROOTS)
def test_a_native_schema_refers_to_nothing(name: str) -> None:
    assert "$ref" not in str(native(name))
    assert native(name)["type"] == "object"


def test_nothing_is_required_in_a_status_and_nothing_is_keyed() -> None:
    pod = native(CORE + "Pod")
    assert "required" not in str(pod["properties"]["status"])
    assert pod["properties"]["spec"]["required"] == ["containers"]
    assert "x-kubernetes-list-type" not in str(pod)


def test_published_definitions_are_closed() -> None:
    definitions = published([CORE + "Secret"])
    assert CORE + "Secret" in definitions
    assert CORE + "PodSpec" not in definitions
    names = set(re.findall(r"#/definitions/([\w.]+)", str(definitions)))
    assert names
    assert names <= definitions.keys()


@pytest.mark.parametrize("text", ["1", "500m", "1Gi", "0.5", ".5", "-1", "+1k", "1e3", "1E-3", "12.", "5u"])
def test_quantities_match_their_pattern(text: str) -> None:
    assert re.search(QUANTITY_PATTERN, text)


@pytest.mark.parametrize("text", ["", "1GB", "1 Gi", "Gi", "1mi", "one", "1KI", "--1"])
def test_other_text_does_not(text: str) -> None:
    assert not re.search(QUANTITY_PATTERN, text)

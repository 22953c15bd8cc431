"""A server with a small custom resource that uses all of a structural schema."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.resource import Resource
from controller.runtime.apiserver import Core, MemoryClient

JSON = dict[str, Any]

WIDGET = Resource("test.example.com", "v1", "Widget", "widgets")
DEFINITION: JSON = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.test.example.com"},
    "spec": {
        "group": "test.example.com",
        "scope": "Namespaced",
        "names": {"kind": "Widget", "plural": "widgets", "shortNames": ["wd"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
                },
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                    {
                        "name": "Ready",
                        "type": "string",
                        "jsonPath": ".status.conditions[?(@.type=='Ready')].status",
                    },
                    {"name": "Parts", "type": "string", "jsonPath": ".spec.parts[*].name"},
                    {"name": "Off", "type": "boolean", "jsonPath": ".spec.off", "priority": 1},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "required": ["spec"],
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["size"],
                                "properties": {
                                    "size": {"type": "integer", "minimum": 1, "maximum": 9},
                                    "off": {"type": "boolean"},
                                    "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
                                    "replicas": {"type": "integer", "format": "int32"},
                                    "port": {
                                        "x-kubernetes-int-or-string": True,
                                        "anyOf": [{"type": "integer"}, {"type": "string"}],
                                    },
                                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                                    "tags": {"type": "object", "additionalProperties": {"type": "string"}},
                                    "parts": {
                                        "type": "array",
                                        "x-kubernetes-list-type": "map",
                                        "x-kubernetes-list-map-keys": ["name"],
                                        "items": {
                                            "type": "object",
                                            "required": ["name"],
                                            "properties": {
                                                "name": {"type": "string", "pattern": "^[a-z]+$"},
                                                "weight": {"type": "number", "default": 1},
                                            },
                                        },
                                    },
                                },
                            },
                            "status": {
                                "type": "object",
                                "default": {"phase": "New"},
                                "properties": {
                                    "phase": {"type": "string"},
                                    "replicas": {"type": "integer"},
                                    "conditions": {
                                        "type": "array",
                                        "items": {
                                            "type": "object",
                                            "x-kubernetes-preserve-unknown-fields": True,
                                        },
                                    },
                                },
                            },
                        },
                    },
                },
            },
        ],
    },
}


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **duration: float) -> None:
        self.now += timedelta(**duration)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def core(clock: Clock) -> Core:
    server = Core(clock=clock, namespaces=("ns",))
    server.register_definition(DEFINITION)
    return server


@pytest.fixture
def client(core: Core) -> MemoryClient:
    return MemoryClient(core)


@pytest.fixture
def widget_resource() -> Resource:
    return WIDGET


@pytest.fixture
def widget() -> JSON:
    return {"metadata": {"name": "w", "namespace": "ns"}, "spec": {"size": 3}}


@pytest.fixture
def schema() -> JSON:
    found: JSON = DEFINITION["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found

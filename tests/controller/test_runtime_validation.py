from typing import Any

import pytest

from api.v1alpha1 import ServingRuntimeSpec
from controller.errors import InvalidRuntimeError
from controller.runtime_validation import check

TYPES = ("mlserver", "triton")


def _spec(**fields: Any) -> ServingRuntimeSpec:
    container = fields.pop("container", {})
    sound = {
        "containers": [{"name": "mlserver"} | container],
        "multiModel": True,
        "grpcEndpoint": "port:8085",
    }
    return ServingRuntimeSpec.parse(sound | fields)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"builtInAdapter": {"serverType": "other"}}, "serverType 'other'.*mlserver, triton"),
        ({"builtInAdapter": {"serverType": "triton"}}, "no container is named triton"),
        ({"container": {"name": "mm"}}, "container name mm"),
        ({"container": {"name": "puller"}}, "container name puller"),
        ({"container": {"name": "mm-x"}}, "container name mm-x"),
        ({"container": {"readinessProbe": {}}}, "readinessProbe"),
        ({"container": {"lifecycle": {}}}, "lifecycle"),
        ({"container": {"volumeMounts": [{"name": "tc-config", "mountPath": "/x"}]}}, "volume tc-config"),
        ({"container": {"volumeMounts": [{"name": "mm-x", "mountPath": "/x"}]}}, "volume mm-x"),
        ({"container": {"ports": [{"name": "grpc", "containerPort": 1}]}}, "port name grpc"),
        ({"container": {"ports": [{"containerPort": 8090}]}}, "port 8090"),
        ({"container": {"ports": [{"containerPort": 11899}]}}, "port 11899"),
        ({"volumes": [{"name": "models-dir"}]}, "volume name models-dir"),
        ({"grpcEndpoint": None}, "grpcEndpoint is missing"),
        ({"grpcEndpoint": "8085"}, "neither port:N nor unix:PATH"),
        ({"grpcDataEndpoint": "port:x"}, "grpcDataEndpoint 'port:x'"),
        ({"grpcDataEndpoint": "port:65536"}, "grpcDataEndpoint 'port:65536'"),
        ({"builtInAdapter": {"serverType": "mlserver"}, "grpcEndpoint": "unix:/a/b"}, "must be port:N"),
    ],
)
def test_names_what_is_reserved_or_missing(fields: dict[str, Any], names: str) -> None:
    with pytest.raises(InvalidRuntimeError, match=names):
        check(_spec(**fields), TYPES)


def test_names_everything_at_once() -> None:
    with pytest.raises(InvalidRuntimeError, match=r"container name mm .*; .*lifecycle"):
        check(_spec(container={"name": "mm", "lifecycle": {}}), TYPES)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"builtInAdapter": {"serverType": "mlserver"}},
        {"container": {"volumeMounts": [{"name": "models-dir", "mountPath": "/m"}], "livenessProbe": {}}},
        {"container": {"ports": [{"name": "own", "containerPort": 11880}]}},
        {"grpcEndpoint": "unix:///tmp/a.sock"},
        {"multiModel": False, "grpcEndpoint": None},
    ],
)
def test_sound_runtimes_pass(fields: dict[str, Any]) -> None:
    check(_spec(**fields), TYPES)

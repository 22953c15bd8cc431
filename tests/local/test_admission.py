"""Local mode refuses what a cluster refuses, with the same words."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import crd
from api.core import CRD
from api.v1alpha1 import ServingRuntime, ServingRuntimeSpec
from controller.runtime.apiserver import Core, MemoryClient
from controller.runtime.errors import Invalid
from controller.runtime_validation import spec_problems
from local import manifests
from local.admission import Admission, _broken_rules
from tests.controller import rule_cases
from tests.controller.conftest import RESOURCES
from tests.controller.rule_cases import Case

NAMESPACE = "models"


@pytest.fixture(scope="module")
def core() -> Core:
    core = Core(namespaces=(NAMESPACE,))
    for definition in manifests.definitions():
        core.register_definition(definition)
    core.add_validator(Admission(manifests.policies()))
    return core


@pytest.fixture
def client(core: Core) -> MemoryClient:
    return MemoryClient(core)


def _named(obj: dict[str, Any], name: str = "m") -> dict[str, Any]:
    obj = copy.deepcopy(obj)
    obj["metadata"] = obj["metadata"] | {"name": name}
    if RESOURCES[obj["kind"]].namespaced:
        obj["metadata"]["namespace"] = NAMESPACE
    return obj


async def _try(client: MemoryClient, obj: dict[str, Any]) -> None:
    resource = RESOURCES[obj["kind"]]
    await client.create(resource, obj)
    await client.delete(resource, obj["metadata"]["name"], obj["metadata"].get("namespace", ""))


@pytest.mark.parametrize("case", rule_cases.ALL, ids=lambda case: f"{case.object['kind']}: {case.id}")
async def test_rules_and_policies(client: MemoryClient, case: Case) -> None:
    obj = _named(case.object)
    if not case.messages:
        await _try(client, obj)
        return
    with pytest.raises(Invalid) as caught:
        await _try(client, obj)
    causes = caught.value.details["causes"] if caught.value.details else []
    told = [cause["message"] for cause in causes]
    if any(case.fields):
        assert [cause["field"] for cause in causes] == list(case.fields)
        assert told == [f"Invalid value: {message}" for message in case.messages]
    else:
        assert len(told) == 1
        assert told[0].endswith(f" denied request: {case.messages[0]}")
    assert case.messages[0] in str(caught.value)


@pytest.mark.parametrize("obj", rule_cases.SAMPLES, ids=rule_cases.title)
async def test_what_the_project_ships_is_accepted(client: MemoryClient, obj: dict[str, Any]) -> None:
    await _try(client, _named(obj))


async def test_an_object_from_before_the_rules_can_change_elsewhere() -> None:
    core = Core(namespaces=(NAMESPACE,))
    for definition in manifests.definitions():
        core.register_definition(definition)
    admission = Admission(manifests.policies())
    enforced = False
    core.add_validator(lambda request: admission(request) if enforced else None)
    client = MemoryClient(core)
    wrong = rule_cases.isvc({})
    await client.create(RESOURCES["InferenceService"], _named(wrong))
    bad_runtime = rule_cases.runtime(container={"name": "mm"})
    await client.create(RESOURCES["ServingRuntime"], _named(bad_runtime))
    enforced = True
    labels = {"metadata": {"labels": {"a": "b"}}}
    await client.patch(RESOURCES["InferenceService"], "m", NAMESPACE, labels)
    await client.patch(RESOURCES["ServingRuntime"], "m", NAMESPACE, labels)
    with pytest.raises(Invalid, match="names no model"):
        await client.patch(
            RESOURCES["InferenceService"], "m", NAMESPACE, {"spec": {"predictor": {"minReplicas": 1}}}
        )
    with pytest.raises(Invalid, match="rename the container"):
        await client.patch(RESOURCES["ServingRuntime"], "m", NAMESPACE, {"spec": {"replicas": 1}})


async def test_a_rule_that_local_mode_does_not_know_is_left_out(core: Core, client: MemoryClient) -> None:
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {"a": {"type": "string"}},
                "x-kubernetes-validations": [
                    {"rule": "self.a.lowerAscii() == 'b'"},
                    {"rule": "self.a.?b.hasValue()"},
                    {"rule": "self.a != 'c'", "message": "not c"},
                    {"rule": "!has(oldSelf.a) || self.a == oldSelf.a", "message": "may not change"},
                ],
            }
        },
    }
    names = {"kind": "Thing", "plural": "things"}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = {"group": "example.com", "scope": "Cluster", "names": names, "versions": [version]}
    core.register_definition(
        {
            "apiVersion": CRD.api_version,
            "kind": CRD.kind,
            "metadata": {"name": "things.example.com"},
            "spec": spec,
        }
    )
    things = next(kind.resource for kind in core.kinds if kind.resource.plural == "things")
    thing = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"a": "x"}}
    await client.create(things, thing)
    with pytest.raises(Invalid, match="not c"):
        await client.patch(things, "t", "", {"spec": {"a": "c"}})
    with pytest.raises(Invalid, match="may not change"):
        await client.patch(things, "t", "", {"spec": {"a": "y"}})
    with pytest.raises(Invalid, match="evaluation error"):
        await client.patch(things, "t", "", {"spec": {"a": None}})


_NAMES = st.sampled_from(
    ["mlserver", "mm", "mm-x", "puller", "mlserver-adapter", "own", "grpc", "models-dir", "tc-config"]
)
_ENDPOINTS = st.one_of(
    st.sampled_from(["", "port:8085", "port:0", "port:99999", "unix:/a", "unix:", "unix:///", "/a/b", "/"]),
    st.text(alphabet="portunix:/0123456789.\n ", max_size=12),
)
_PORTS = st.fixed_dictionaries(
    {"containerPort": st.integers(8079, 8091) | st.integers(11879, 11901)}, optional={"name": _NAMES}
)
_MOUNTS = st.fixed_dictionaries({"name": _NAMES, "mountPath": st.just("/m")})
_VOLUMES = st.fixed_dictionaries({"name": _NAMES})
_CONTAINERS = st.fixed_dictionaries(
    {"name": _NAMES},
    optional={
        "ports": st.lists(_PORTS, max_size=2, unique_by=lambda port: port["containerPort"]),
        "volumeMounts": st.lists(
            st.fixed_dictionaries({"name": _NAMES, "mountPath": st.just("/m")}), max_size=1
        ),
        "readinessProbe": st.just({}),
        "lifecycle": st.just({}),
    },
)
_SPECS = st.fixed_dictionaries(
    {"containers": st.lists(_CONTAINERS, max_size=3, unique_by=lambda container: container["name"])},
    optional={
        "multiModel": st.booleans(),
        "disabled": st.booleans(),
        "grpcEndpoint": _ENDPOINTS,
        "grpcDataEndpoint": _ENDPOINTS,
        "storageHelper": st.fixed_dictionaries({}, optional={"disabled": st.booleans()}),
        "builtInAdapter": st.fixed_dictionaries({}, optional={"serverType": _NAMES}),
        "volumes": st.lists(
            st.fixed_dictionaries({"name": _NAMES}), max_size=2, unique_by=lambda v: v["name"]
        ),
    },
)


_SCHEMA = crd.schema(ServingRuntime)["properties"]["spec"]


@given(spec=_SPECS)
def test_cel_and_the_controller_agree_on_any_runtime(spec: dict[str, Any]) -> None:
    told = [cause.message for cause in _broken_rules(_SCHEMA, spec, None, "spec")]
    found = spec_problems(ServingRuntimeSpec.parse(spec))
    assert told == [f"Invalid value: {problem.message}" for problem in found]

"""ServingRuntime and Predictor as Python objects."""

import pytest
from pydantic import ValidationError

from api.v1alpha1 import (
    ClusterServingRuntime,
    FailureInfo,
    ModelType,
    Predictor,
    PredictorSpec,
    PredictorStatus,
    ServingRuntime,
    ServingRuntimeSpec,
    Storage,
)

RUNTIME = {
    "containers": [{"name": "server", "image": "i", "ports": [{"containerPort": 1, "protocol": "TCP"}]}],
    "volumes": [{"name": "v", "csi": {"driver": "d"}}],
    "nodeSelector": {"a": "b"},
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "tolerations": [{"key": "k", "operator": "Exists"}],
    "labels": {"l": "1"},
    "annotations": {"a": "1"},
    "imagePullSecrets": [{"name": "s"}],
    "multiModel": True,
    "disabled": False,
    "replicas": 0,
    "supportedModelFormats": [{"name": "sklearn", "version": "0", "autoSelect": True, "priority": 1}],
    "protocolVersions": ["grpc-v2"],
    "grpcEndpoint": "port:8085",
    "grpcDataEndpoint": "unix:/tmp/s",
    "httpDataEndpoint": "port:1",
    "storageHelper": {"disabled": True},
    "builtInAdapter": {
        "serverType": "mlserver",
        "runtimeManagementPort": 8001,
        "memBufferBytes": 1,
        "modelLoadingTimeoutMillis": 2,
        "env": [{"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    },
}


@pytest.mark.parametrize("cls", [ServingRuntime, ClusterServingRuntime])
def test_every_field_of_a_runtime_is_typed_and_kept(
    cls: type[ServingRuntime] | type[ClusterServingRuntime],
) -> None:
    runtime = cls.parse({"spec": RUNTIME})
    assert runtime.dump()["spec"] == RUNTIME
    assert not runtime.spec.model_extra
    assert {field.alias for field in ServingRuntimeSpec.model_fields.values()} == RUNTIME.keys()


def test_a_runtime_without_containers_is_refused_and_an_empty_list_is_not() -> None:
    assert ServingRuntime.parse({"spec": {"containers": []}}).spec.containers == []
    with pytest.raises(ValidationError, match=r"spec\.containers"):
        ServingRuntime.parse({"spec": {}})


def test_absent_and_empty_storage_fields_differ() -> None:
    given = PredictorSpec.parse({"modelType": {"name": "m"}, "storage": {"path": "", "parameters": {}}})
    assert given.storage == Storage(path="", parameters={})
    assert given.dump()["storage"] == {"path": "", "parameters": {}}
    absent = PredictorSpec.parse({"modelType": {"name": "m"}, "storage": {}})
    assert absent.storage is not None
    assert (absent.storage.path, absent.storage.parameters) == (None, None)
    assert PredictorSpec.parse({"modelType": {"name": "m"}}).storage is None


def test_a_new_predictor_has_the_status_that_the_crd_gives_it() -> None:
    status = Predictor(spec=PredictorSpec(model_type=ModelType(name="m"))).status
    assert (status.transition_status, status.active_model_state) == ("UpToDate", "Pending")
    assert not status.available


def test_a_written_status_has_every_required_field_and_both_endpoints() -> None:
    assert PredictorStatus(last_failure_info=FailureInfo(reason="ModelLoadFailed")).dump() == {
        "available": False,
        "transitionStatus": "UpToDate",
        "activeModelState": "Pending",
        "targetModelState": "",
        "failedCopies": 0,
        "totalCopies": 0,
        "grpcEndpoint": "",
        "httpEndpoint": "",
        "lastFailureInfo": {"reason": "ModelLoadFailed"},
    }


@pytest.mark.parametrize(
    "status",
    [
        {"activeModelState": "Lodaed"},
        {"transitionStatus": ""},
        {"lastFailureInfo": {"reason": "RuntimeDisabled"}},
        {"totalCopies": "1"},
    ],
)
def test_values_outside_the_contract_are_refused(status: object) -> None:
    with pytest.raises(ValidationError):
        Predictor.parse({"spec": {"modelType": {"name": "m"}}, "status": status})


def test_gpu_is_required_or_preferred() -> None:
    with pytest.raises(ValidationError, match="gpu"):
        PredictorSpec.parse({"modelType": {"name": "m"}, "gpu": "maybe"})

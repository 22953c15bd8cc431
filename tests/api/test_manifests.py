"""What users write is accepted or refused as the contract says, by the CRDs as the API server reads them."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from api import crd
from api.meta import KubeObject
from api.v1alpha1 import ServingRuntime
from api.v1beta1 import InferenceService
from controller.runtime.apiserver.schema import default, prune, validate

ROOT = Path(__file__).parent.parent.parent
KINDS = {cls.__name__: cls for cls in crd.COLUMNS}
SCHEMAS = {cls: crd.schema(cls) for cls in crd.COLUMNS}
FOLDERS = ("config/example-isvcs", "config/example-predictors", "runtimes")


def manifests() -> list[Any]:
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.yaml"))]
    return [
        pytest.param(obj, id=path.name)
        for path in paths
        for obj in yaml.safe_load_all(path.read_text())
        if obj.get("kind") in KINDS
    ]


def complaints(cls: type[KubeObject], obj: dict[str, Any]) -> list[str]:
    """What strict validation says about an object: unknown fields, then wrong values."""
    obj = copy.deepcopy(obj)
    unknown = prune(SCHEMAS[cls], obj)
    default(SCHEMAS[cls], obj)
    return [*unknown, *map(str, validate(SCHEMAS[cls], obj))]


@pytest.mark.parametrize("obj", manifests())
def test_every_manifest_of_the_repository_is_accepted(obj: dict[str, Any]) -> None:
    cls = KINDS[obj["kind"]]
    assert obj["apiVersion"] == cls.RESOURCE.api_version
    assert complaints(cls, obj) == []
    assert cls.parse(obj).dump() == obj


def test_there_are_manifests_of_each_folder() -> None:
    for folder in FOLDERS:
        assert list((ROOT / folder).glob("*.yaml")), folder


def test_the_mlserver_runtime_is_what_the_adapter_and_the_mesh_expect() -> None:
    runtime = ServingRuntime.parse(yaml.safe_load((ROOT / "runtimes" / "mlserver-1.x.yaml").read_text()))
    spec = runtime.spec
    assert runtime.metadata.labels == {"name": "modelmesh-serving-mlserver-1.x-SR"}
    assert [(f.name, f.version, f.auto_select) for f in spec.supported_model_formats] == [
        ("sklearn", "0", True),
        ("xgboost", "1", True),
        ("lightgbm", "3", True),
    ]
    assert (spec.grpc_endpoint, spec.grpc_data_endpoint) == ("port:8085", "port:8001")
    assert spec.multi_model
    assert spec.protocol_versions == ["grpc-v2"]
    adapter = spec.built_in_adapter
    assert adapter is not None
    assert adapter.server_type == spec.containers[0].name == "mlserver"
    assert (adapter.runtime_management_port, adapter.mem_buffer_bytes) == (8001, 134217728)
    assert adapter.model_loading_timeout_millis == 90000
    env = {variable.name: variable.value for variable in spec.containers[0].env}
    assert env["MLSERVER_MODELS_DIR"] == "/models/_mlserver_models/"
    assert env["MLSERVER_GRPC_PORT"] == "8001"


KSERVE = {
    "transformer": """
        predictor:
          minReplicas: 1
          model:
            modelFormat: {name: pytorch}
            storageUri: gs://bucket/models/mnist
            resources: {limits: {cpu: 1, memory: 2Gi}, requests: {cpu: 100m}}
            ports: [{containerPort: 8081, name: h2c, protocol: TCP}]
        transformer:
          maxReplicas: 3
          scaleMetric: concurrency
          scaleTarget: 5
          containers:
          - image: example/transformer:1
            name: kserve-container
            command: [python, -m, model]
            args: [--model_name, mnist]
            env: [{name: STORAGE_URI, value: gs://bucket/store}]
          affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1}]}}
          volumes: [{name: cache, emptyDir: {sizeLimit: 1Gi}}]
        """,
    "explainer": """
        predictor: {sklearn: {storageUri: 'gs://bucket/income', protocolVersion: v2, livenessProbe: {}}}
        explainer:
          minReplicas: 1
          alibi:
            type: AnchorTabular
            storageUri: gs://bucket/explainer
            config: {threshold: '0.95'}
            resources: {limits: {memory: 4Gi}}
            readinessProbe: {httpGet: {path: /ready}}
          securityContext: {runAsUser: 1000}
        """,
    "custom container": """
        predictor:
          serviceAccountName: models
          containers:
          - name: kserve-container
            image: example/model:1
            env:
            - {name: A, value: '1'}
            - {name: A, value: '2'}
            - {name: B, valueFrom: {secretKeyRef: {name: s, key: k}}}
            readinessProbe: {httpGet: {path: /ready}, periodSeconds: 5}
            volumeMounts: [{name: store, mountPath: /mnt, readOnly: true}]
            securityContext: {runAsNonRoot: true, capabilities: {drop: [ALL]}}
          initContainers: [{name: fetch, image: example/fetch:1}]
          volumes:
          - name: store
            persistentVolumeClaim: {claimName: models}
          - name: scratch
            ephemeral:
              volumeClaimTemplate:
                metadata: {labels: {a: b}}
                spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
          tolerations: [{key: gpu, operator: Exists, effect: NoSchedule}]
          imagePullSecrets: [{name: one}, {name: one}]
          topologySpreadConstraints:
          - {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway, labelSelector: {}}
          hostAliases: [{hostnames: [a]}]
        """,
    "canary, batcher and logger": """
        predictor:
          canaryTrafficPercent: 10
          containerConcurrency: 4
          timeout: 60
          batcher: {maxBatchSize: 32, maxLatency: 500, timeout: 60}
          logger: {mode: all, url: 'http://sink'}
          labels: {team: a}
          annotations: {note: b}
          tensorflow: {storageUri: 'gs://bucket/flowers-2', runtimeVersion: 2.5.1}
        """,
    "every framework": """
        predictor:
          sklearn: {storageUri: 's3://b/p'}
          xgboost: {storage: {key: k, path: p, parameters: {bucket: b}, schemaPath: s}}
          lightgbm: {}
          tensorflow: {}
          onnx: {}
          pytorch: {}
          triton: {args: [a]}
          pmml: {}
          paddle: {}
          huggingface: {env: [{name: HF_TOKEN, value: t}]}
        """,
}


@pytest.mark.parametrize("name", KSERVE)
def test_inference_services_of_kserve_are_accepted_and_kept(name: str) -> None:
    obj = {"spec": yaml.safe_load(KSERVE[name])}
    assert complaints(InferenceService, obj) == []
    assert InferenceService.parse(obj).dump()["spec"] == obj["spec"]


def isvc(**model: Any) -> dict[str, Any]:
    return {"spec": {"predictor": {"model": {"modelFormat": {"name": "sklearn"}, **model}}}}


def runtime(**container: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "c", **container}]}}


@pytest.mark.parametrize(
    ("cls", "obj", "field"),
    [
        (InferenceService, isvc(storge={}), "spec.predictor.model.storge"),
        (InferenceService, isvc(storage={"pth": "p"}), "spec.predictor.model.storage.pth"),
        (InferenceService, isvc(storage={"path": 1}), "spec.predictor.model.storage.path"),
        (InferenceService, isvc(modelFormat="sklearn"), "spec.predictor.model.modelFormat"),
        (InferenceService, isvc(modelFormat={}), "spec.predictor.model.modelFormat.name"),
        (InferenceService, isvc(env=[{"value": "v"}]), "spec.predictor.model.env[0].name"),
        (InferenceService, {"spec": {}}, "spec.predictor"),
        (InferenceService, {"spec": {"predictor": {"modle": {}}}}, "spec.predictor.modle"),
        (InferenceService, {}, "spec"),
        (ServingRuntime, runtime(imgae="i"), "spec.containers[0].imgae"),
        (ServingRuntime, runtime(args="a"), "spec.containers[0].args"),
        (ServingRuntime, runtime(env=[{"name": "A", "value": 1}]), "spec.containers[0].env[0].value"),
        (
            ServingRuntime,
            runtime(resources={"limits": {"memory": "1GB"}}),
            "spec.containers[0].resources.limits.memory",
        ),
        (
            ServingRuntime,
            runtime(livenessProbe={"httpGet": {"prot": 1, "port": 1}}),
            "spec.containers[0].livenessProbe.httpGet.prot",
        ),
        (
            ServingRuntime,
            runtime(ports=[{"containerPort": "http"}]),
            "spec.containers[0].ports[0].containerPort",
        ),
        (ServingRuntime, {"spec": {"containers": [{"image": "i"}]}}, "spec.containers[0].name"),
        (ServingRuntime, {"spec": {}}, "spec.containers"),
        (ServingRuntime, {"spec": {"containers": [], "replicas": -1}}, "spec.replicas"),
        (ServingRuntime, {"spec": {"containers": [], "multiModel": "yes"}}, "spec.multiModel"),
        (
            ServingRuntime,
            {"spec": {"containers": [], "supportedModelFormats": [{"name": "a", "priority": 0}]}},
            "spec.supportedModelFormats[0].priority",
        ),
    ],
)
def test_a_mistake_is_refused_and_its_field_named(
    cls: type[KubeObject], obj: dict[str, Any], field: str
) -> None:
    found = complaints(cls, obj)
    assert len(found) == 1
    assert field in found[0]

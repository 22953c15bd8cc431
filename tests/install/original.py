"""Objects of KServe ModelMesh as its users have them: what its samples say, field by field.

Its four runtimes are in tests/controller/golden/runtimes.
"""

from base64 import b64encode
from typing import Any

MODELS = {
    "keras": ("keras", "keras/mnist.h5"),
    "lightgbm": ("lightgbm", "lightgbm/mushroom.bst"),
    "onnx": ("onnx", "onnx/mnist.onnx"),
    "pytorch": ("pytorch", "pytorch/cifar"),
    "sklearn": ("sklearn", "sklearn/mnist-svm.joblib"),
    "tensorflow": ("tensorflow", "tensorflow/mnist.savedmodel"),
    "xgboost": ("xgboost", "xgboost/mushroom.json"),
}
"""Type and path of the models in its MinIO."""
_MODELMESH = {"serving.kserve.io/deploymentMode": "ModelMesh"}


def predictors() -> list[dict[str, Any]]:
    return [
        {
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "Predictor",
            "metadata": {"name": f"example-{name}-predictor"},
            "spec": {
                "modelType": {"name": model_type},
                "path": path,
                "storage": {"s3": {"secretKey": "localMinIO"}},
            },
        }
        for name, (model_type, path) in MODELS.items()
    ]


def _isvc(name: str, predictor: dict[str, Any], **annotations: str) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "annotations": _MODELMESH | annotations},
        "spec": {"predictor": predictor},
    }


def inference_services() -> list[dict[str, Any]]:
    """Those of each format, on another runtime, by URI, in the old style, and from a volume."""
    found = [
        _isvc(
            f"example-{name}-isvc",
            {"model": {"modelFormat": {"name": form}, "storage": {"key": "localMinIO", "path": path}}},
        )
        for name, (form, path) in MODELS.items()
    ]
    storage = {"key": "localMinIO", "path": "xgboost/mushroom-fil"}
    fil = {"modelFormat": {"name": "xgboost"}, "runtime": "triton-2.x", "storage": storage}
    uri = "s3://modelmesh-example-models/sklearn/mnist-svm.joblib"
    key = {"serving.kserve.io/secretKey": "localMinIO"}
    volume = {
        "modelFormat": {"name": "sklearn"},
        "storageUri": "pvc://my-models-pvc/sklearn/mnist-svm.joblib",
    }
    return [
        *found,
        _isvc("example-xgboost-mushroom-fil", {"model": fil}),
        _isvc("by-uri", {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": uri}}, **key),
        _isvc("old-style", {"sklearn": {"storageUri": uri}}, **key),
        _isvc("from-volume", {"model": volume}),
    ]


def _custom(name: str, image: str, cpu: str, **more: Any) -> dict[str, Any]:
    memory = {"containerName": "modelserver", "resource": "requests.memory"}
    container = {
        "name": "modelserver",
        "image": image,
        "env": [
            {"name": "MODEL_DIRECTORY_PATH", "value": "/models"},
            {"name": "MODEL_SERVER_MEM_REQ_BYTES", "valueFrom": {"resourceFieldRef": memory}},
        ],
        "resources": {
            "requests": {"cpu": "500m", "memory": "1Gi"},
            "limits": {"cpu": cpu, "memory": "1Gi"},
        },
    }
    spec = {
        "containers": [container],
        "multiModel": True,
        "grpcDataEndpoint": "port:8001",
        "grpcEndpoint": "port:8001",
        "supportedModelFormats": [{"name": "ml-type1", "version": "1", "autoSelect": True}],
    }
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": name},
        "spec": spec | more,
    }


def custom_runtimes() -> list[dict[str, Any]]:
    disabled = {"disabled": True}
    return [
        _custom("custom-runtime-1.x", "tnarayan74/custom-runtime:6.0", "2"),
        _custom("custom-runtime-pullerless", "seldonio/mlserver:1.3.2", "5", storageHelper=disabled),
    ]


def controller() -> dict[str, Any]:
    """The controller's Deployment, with the settings of it that ours does not have."""
    labels = {"control-plane": "modelmesh-controller"}
    architecture = {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}
    required = {"nodeSelectorTerms": [{"matchExpressions": [architecture]}]}
    volume = {"name": "config-defaults", "configMap": {"name": "model-serving-config-defaults"}}
    container = {
        "name": "manager",
        "image": "kserve/modelmesh-controller:v0.11.2",
        "command": ["/manager"],
        "args": ["--enable-leader-election"],
        "env": [{"name": "ETCD_SECRET_NAME", "value": "model-serving-etcd"}],
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8081}, "initialDelaySeconds": 15},
        "volumeMounts": [{"name": volume["name"], "mountPath": "/etc/model-serving/config/default"}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "modelmesh-controller", "labels": labels},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "affinity": {
                        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required},
                    },
                    "containers": [container],
                    "serviceAccountName": "modelmesh-controller",
                    "volumes": [volume],
                },
            },
        },
    }


def settings() -> list[dict[str, Any]]:
    """Secrets and ConfigMap of its documentation."""
    etcd = '{"endpoints": "http://etcd.modelmesh-serving:2379", "root_prefix": "modelmesh-serving"}'
    configuration = """
        podsPerRuntime: 2
        restProxy: {enabled: true, image: {name: kserve/rest-proxy, tag: v0.11.2}}
        modelMeshResources: {requests: {cpu: 300m, memory: 448Mi}, limits: {cpu: "3", memory: 448Mi}}
        """
    entry = (
        '{"type": "s3", "access_key_id": "a", "secret_access_key": "s", "endpoint_url": "http://minio:9000"}'
    )
    return [
        _core("Secret", "model-serving-etcd", stringData={"etcd_connection": etcd}),
        _core(
            "Secret",
            "storage-config",
            stringData={"localMinIO": entry},
            data={"ours": b64encode(entry.encode()).decode()},
        ),
        _core("ConfigMap", "model-serving-config", data={"config.yaml": configuration}),
    ]


def _core(kind: str, name: str, **content: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}} | content

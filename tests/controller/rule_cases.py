"""Objects that break each rule, and their neighbours that do not: for the checks in Python, the in-memory API
server and a real one alike."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from api.rules import Rule
from api.v1alpha1 import rules as v1alpha1
from api.v1beta1 import rules as v1beta1

JSON = dict[str, Any]
ROOT = Path(__file__).parents[2]


class Case(NamedTuple):
    """An object and the messages of the rules it breaks, in order; none: it is sound."""

    id: str
    object: JSON
    messages: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()


def _case(id_: str, obj: JSON, *broken: Rule) -> Case:
    return Case(id_, obj, tuple(rule.message for rule in broken), tuple(rule.field for rule in broken))


def _object(api_version: str, kind: str, spec: JSON, **annotations: str) -> JSON:
    metadata: JSON = {"name": "m"}
    if annotations:
        metadata["annotations"] = {f"serving.kserve.io/{key}": text for key, text in annotations.items()}
    return {
        "apiVersion": f"serving.kserve.io/{api_version}",
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
    }


def runtime(**fields: Any) -> JSON:
    container = fields.pop("container", {})
    annotations = fields.pop("annotations", {})
    spec = {
        "containers": [{"name": "mlserver", "image": "i"} | container],
        "multiModel": True,
        "grpcEndpoint": "port:8085",
    } | fields
    spec = {key: value for key, value in spec.items() if value is not None}
    return _object("v1alpha1", "ServingRuntime", spec, **annotations)


def _mounts(name: str) -> JSON:
    return {"volumeMounts": [{"name": "fine", "mountPath": "/f"}, {"name": name, "mountPath": "/x"}]}


def _ports(**port: Any) -> JSON:
    return {"ports": [{"containerPort": 1}, {"containerPort": 2} | port]}


_MLSERVER = {"serverType": "mlserver"}
_R = v1alpha1

RUNTIMES = [
    _case("sound", runtime()),
    _case("no containers", runtime(containers=[], disabled=True)),
    *(
        _case(f"container {name}", runtime(container={"name": name}), _R.CONTAINER_NAMES)
        for name in ("mm", "rest-proxy", "puller", "mm-x", "mm-")
    ),
    *(_case(f"container {name}", runtime(container={"name": name})) for name in ("mmx", "pullers", "a-mm")),
    _case("readinessProbe", runtime(container={"readinessProbe": {}}), _R.READINESS),
    _case("other probes", runtime(container={"livenessProbe": {}, "startupProbe": {}})),
    _case("lifecycle", runtime(container={"lifecycle": {}}), _R.LIFECYCLE),
    *(
        _case(f"mount {name}", runtime(container=_mounts(name)), _R.MOUNTS)
        for name in ("storage-config", "etcd-config", "tc-config", "domain-socket", "mm-x")
    ),
    *(_case(f"mount {name}", runtime(container=_mounts(name))) for name in ("models-dir", "config")),
    *(
        _case(f"volume {name}", runtime(volumes=[{"name": name, "emptyDir": {}}]), _R.VOLUMES)
        for name in ("storage-config", "etcd-config", "tc-config", "domain-socket", "models-dir", "mm-x")
    ),
    _case("own volume", runtime(volumes=[{"name": "own", "emptyDir": {}}])),
    *(
        _case(f"port {name}", runtime(container=_ports(name=name)), _R.PORT_NAME)
        for name in ("grpc", "http", "prometheus", "mm-x")
    ),
    _case("port own", runtime(container=_ports(name="http2"))),
    *(
        _case(f"port {number}", runtime(container=_ports(containerPort=number)), _R.PORT_NUMBER)
        for number in (8080, 8085, 8089, 8090, 11881, 11899)
    ),
    *(
        _case(f"port {number}", runtime(container=_ports(containerPort=number)))
        for number in (8081, 8088, 8091, 11880, 11900)
    ),
    _case("adapter", runtime(builtInAdapter=_MLSERVER)),
    _case("adapter of another", runtime(builtInAdapter={"serverType": "triton"}), _R.ADAPTED_CONTAINER),
    _case("adapter of none", runtime(builtInAdapter={}), _R.ADAPTED_CONTAINER),
    _case(
        "adapter's name",
        runtime(builtInAdapter=_MLSERVER, containers=[{"name": "mlserver"}, {"name": "mlserver-adapter"}]),
        _R.ADAPTER_CONTAINER,
    ),
    _case("adapter's name without one", runtime(container={"name": "mlserver-adapter"})),
    _case("no endpoint", runtime(grpcEndpoint=None), _R.ENDPOINT_GIVEN),
    _case("empty endpoint", runtime(grpcEndpoint=""), _R.ENDPOINT_GIVEN),
    *(
        _case(f"endpoint {text}", runtime(grpcEndpoint=text), _R.MANAGEMENT_ENDPOINT)
        for text in ("8085", "port:", "port:x", "port:0", "port:65536", "port:8085 ", "unix:", "unix:///")
    ),
    _case("bare path for the puller", runtime(grpcEndpoint="/run/s"), _R.MANAGEMENT_ENDPOINT),
    _case("bare path", runtime(grpcEndpoint="/run/s", storageHelper={"disabled": True})),
    *(
        _case(f"endpoint {text}", runtime(grpcEndpoint=text))
        for text in ("port:1", "port:65535", "port:08085", "unix:/a/b", "unix:///tmp/a.sock", "unix:a")
    ),
    _case("data endpoint", runtime(grpcDataEndpoint="port:8001")),
    _case("bad data endpoint", runtime(grpcDataEndpoint="localhost:8001"), _R.DATA_ENDPOINT),
    _case(
        "adapter on a socket", runtime(builtInAdapter=_MLSERVER, grpcEndpoint="unix:/a/b"), _R.ADAPTER_PORT
    ),
    _case(
        "everything at once",
        runtime(container={"name": "mm", "lifecycle": {}}, grpcEndpoint=None),
        _R.CONTAINER_NAMES,
        _R.LIFECYCLE,
        _R.ENDPOINT_GIVEN,
    ),
    _case(
        "a runtime of KServe's",
        runtime(
            multiModel=None,
            grpcEndpoint=None,
            container={"name": "mm", "readinessProbe": {}, "lifecycle": {}} | _ports(name="http"),
        ),
    ),
    _case("a disabled runtime", runtime(disabled=True, grpcEndpoint=None, container={"name": "mm"})),
]
"""Rules of the CRDs."""


def predictor(**fields: Any) -> JSON:
    return _object("v1alpha1", "Predictor", {"modelType": {"name": "sklearn"}} | fields)


_S3 = {"secretKey": "k", "bucket": "b"}
PREDICTORS = [
    _case("without storage", predictor(path="a", schemaPath="b")),
    _case("storage", predictor(storage={"path": "a", "schemaPath": "b", "key": "k", "parameters": {}})),
    _case("old storage", predictor(path="a", schemaPath="b", storage={"s3": _S3})),
    _case("two paths", predictor(path="a", storage={"path": "b"}), _R.PATHS),
    _case("an empty path", predictor(path="", storage={"path": "b"})),
    _case("two schemas", predictor(schemaPath="a", storage={"schemaPath": "b"}), _R.SCHEMA_PATHS),
    _case("claim", predictor(storage={"persistentVolumeClaim": {"claimName": "c"}}), _R.CLAIM),
    *(
        _case(f"s3 and {key}", predictor(storage={"s3": _S3, key: value}), _R.S3)
        for key, value in (("path", ""), ("schemaPath", "p"), ("parameters", {}), ("key", "k"))
    ),
]
"""Rules of the CRD."""


def isvc(predictor: JSON, **annotations: str) -> JSON:
    annotations = {"deploymentMode": "ModelMesh"} | annotations
    return _object("v1beta1", "InferenceService", {"predictor": predictor}, **annotations)


def model(**fields: Any) -> JSON:
    fields = {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://b/p"} | fields
    return {"model": {key: value for key, value in fields.items() if value is not None}}


_I = v1beta1


def _uri(text: str) -> Case:
    message = f"storageUri '{text}' must be {_I.URI.message.removeprefix('storageUri must be ')}"
    return Case(f"uri {text}", isvc(model(storageUri=text)), (message,))


INFERENCE_SERVICES = [
    _case("model", isvc(model())),
    _case("storage", isvc(model(storageUri=None, storage={"path": "p", "key": "k"}))),
    _case("framework", isvc({"sklearn": {"storageUri": "gs://b/p"}}, servingRuntime="r")),
    _case("two frameworks", isvc({"pmml": {}, "sklearn": {"storage": {"path": "p"}}})),
    Case(
        "model and framework",
        isvc(model() | {"sklearn": {}, "onnx": {}}),
        ("spec.predictor has both model and sklearn: keep one",),
    ),
    _case("runtime by annotation", isvc(model(), servingRuntime="r"), _I.RUNTIME_ONCE),
    _case("no format", isvc(model(modelFormat=None)), _I.FORMAT),
    _case("nothing", isvc({}), _I.ANY_BLOCK),
    _case("a framework of KServe's", isvc({"paddle": {"storageUri": "s3://b/p"}}), _I.ANY_BLOCK),
    _case("no place", isvc(model(storageUri=None)), _I.ANY_PLACE),
    _case("a key alone", isvc({"onnx": {"storage": {"key": "k"}}}), _I.ANY_PLACE),
    _case("two places", isvc(model(storage={"path": "p"})), _I.ONE_PLACE),
    *map(_uri, ("hdfs://b/p", "models/m", "/models/m", "s3:/b", "s3://", "http:///p", "")),
    *(
        _case(f"uri {text}", isvc(model(storageUri=text)))
        for text in ("S3://b/p", "s3://b", "pvc://c/p", "http://h/p", "https://h/p?q#f")
    ),
    _case("KServe's, without annotation", _object("v1beta1", "InferenceService", {"predictor": {}})),
    _case(
        "KServe's, raw",
        _object("v1beta1", "InferenceService", {"predictor": {}}, deploymentMode="RawDeployment"),
    ),
    _case(
        "KServe's, serverless",
        _object(
            "v1beta1",
            "InferenceService",
            {"predictor": model() | {"sklearn": {}}},
            deploymentMode="Serverless",
        ),
    ),
]
"""Rules of the policy, of which the API server tells the first that is broken."""


def _scaled(**annotations: str) -> JSON:
    names = {"class_": "autoscalerClass", "target": "targetUtilizationPercentage"}
    named = {names.get(key, key.replace("_", "-")): value for key, value in annotations.items()}
    return runtime(annotations=named)


AUTOSCALING = [
    _case("hpa", _scaled(class_="hpa")),
    _case("hpa whole", _scaled(class_="hpa", metrics="memory", target="50", min_scale="2", max_scale="3")),
    _case("none", _scaled(class_="none")),
    _case("another class", _scaled(class_="keda"), _R.SCALING_CLASS),
    _case("another metric", _scaled(class_="hpa", metrics="rps"), _R.SCALING_METRIC),
    _case("another metric, no hpa", _scaled(metrics="rps")),
    *(
        _case(f"target {text}", _scaled(target=text), _R.SCALING_TARGET)
        for text in ("0", "101", "x", "", "1.5", "-1")
    ),
    *(_case(f"target {text}", _scaled(class_="hpa", target=text)) for text in ("1", "100", "+5", "007")),
    _case("replicas", runtime(replicas=2, annotations={"autoscalerClass": "hpa"}), _R.SCALING_REPLICAS),
    *(
        _case(f"min {text}", _scaled(class_="hpa", min_scale=text, max_scale="9"), _R.SCALING_MIN)
        for text in ("0", "-1", "x")
    ),
    _case("max", _scaled(class_="hpa", max_scale="many"), _R.SCALING_MAX),
    _case("order", _scaled(class_="hpa", min_scale="3", max_scale="2"), _R.SCALING_ORDER),
    _case("order by default", _scaled(class_="hpa", min_scale="2"), _R.SCALING_ORDER),
    _case("scale without hpa", _scaled(min_scale="x", max_scale="y")),
    _case(
        "KServe's runtime",
        runtime(multiModel=None, grpcEndpoint=None, annotations={"autoscalerClass": "keda"}),
    ),
]
"""Rules of the policy."""

ALL = [*RUNTIMES, *PREDICTORS, *INFERENCE_SERVICES, *AUTOSCALING]


def _documents() -> Iterator[JSON]:
    for folder in ("config/example-isvcs", "config/example-predictors", "runtimes"):
        for file in sorted((ROOT / folder).glob("*.yaml")):
            yield from yaml.safe_load_all(file.read_text())
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for block in re.findall(
            r"^(?:```yaml|.*<<'?EOF'?)\n(.*?)^(?:```|EOF)$", page.read_text(), re.MULTILINE | re.DOTALL
        ):
            yield from yaml.safe_load_all(block)


_KINDS = {"ServingRuntime", "ClusterServingRuntime", "Predictor", "InferenceService"}
SAMPLES = [obj for obj in _documents() if isinstance(obj, dict) and obj.get("kind") in _KINDS]
"""Every manifest of these kinds that the project ships or documents."""


def title(obj: JSON) -> str:
    """A name for a test's output."""
    return f"{obj['kind']} {obj['metadata']['name']}"

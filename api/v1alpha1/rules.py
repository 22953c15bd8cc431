"""What a runtime and a Predictor must satisfy beyond the types of their fields."""

from api.resource import Resource
from api.rules import CHANGED, Policy, Rule, quoted

SERVING_RUNTIME = Resource("serving.kserve.io", "v1alpha1", "ServingRuntime", "servingruntimes")
CLUSTER_SERVING_RUNTIME = Resource(
    "serving.kserve.io", "v1alpha1", "ClusterServingRuntime", "clusterservingruntimes", namespaced=False
)

PREFIX = "mm-"
CONTAINERS = ("mm", "rest-proxy", "puller")
PRIVATE_VOLUMES = ("storage-config", "etcd-config", "tc-config", "domain-socket")
OWN_VOLUMES = (*PRIVATE_VOLUMES, "models-dir")
PORT_NAMES = ("grpc", "http", "prometheus")
PORTS = (8080, 8085, 8089, 8090)
"""Peers, adapter, probes, preStop."""
FIRST_PORT, LAST_PORT = 11881, 11899
"""A range for the mesh's own use."""

_PORT_NUMBER = (
    "0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"  # 1..65535
)
ENDPOINT = f"port:{_PORT_NUMBER}|unix:/*[^/].*"
SOCKET_PATH = "/+[^/].*"
"""The original takes a bare path too, except where its puller has to read it."""

MAX_ITEMS = {
    "containers": 256,
    "containers[].ports": 1024,
    "containers[].volumeMounts": 1024,
    "volumes": 1024,
}
"""The API server runs a rule over a list only where that has a bound. No pod comes near these."""
MAX_LENGTH = {"builtInAdapter.serverType": 1024}
"""As `MAX_ITEMS`, in characters."""

_ACTIVE = "has(self.multiModel) && self.multiModel && !(has(self.disabled) && self.disabled)"
"""KServe's own runtimes have none of our pods' parts, and a disabled one has no pods."""


def _runtime_rule(field: str, expression: str, message: str) -> Rule:
    return Rule(f"spec.{field}", f"!({_ACTIVE}) || ({expression})", message)


def _not_reserved(name: str, words: tuple[str, ...]) -> str:
    return f"!({name} in {quoted(words)}) && !{name}.startsWith('{PREFIX}')"


def _endpoint(field: str) -> str:
    no_puller = (
        "has(self.builtInAdapter) || "
        "(has(self.storageHelper) && has(self.storageHelper.disabled) && self.storageHelper.disabled)"
    )
    return (
        f"!has(self.{field}) || self.{field} == '' || self.{field}.matches('^({ENDPOINT})$') || "
        f"(({no_puller}) && self.{field}.matches('^{SOCKET_PATH}$'))"
    )


CONTAINER_NAMES = _runtime_rule(
    "containers",
    f"self.containers.all(c, {_not_reserved('c.name', CONTAINERS)})",
    "the pod has containers of its own named mm, rest-proxy and puller, and names that begin with mm- are "
    "reserved: rename the container",
)
READINESS = _runtime_rule(
    "containers",
    "self.containers.all(c, !has(c.readinessProbe))",
    "the mesh decides when the pod is ready: remove the readinessProbe (the other probes may stay)",
)
LIFECYCLE = _runtime_rule(
    "containers",
    "self.containers.all(c, !has(c.lifecycle))",
    "the mesh decides when the pod may stop: remove the container's lifecycle",
)
MOUNTS = _runtime_rule(
    "containers",
    "self.containers.all(c, !has(c.volumeMounts) || c.volumeMounts.all(m, "
    f"{_not_reserved('m.name', PRIVATE_VOLUMES)}))",
    f"volumes {', '.join(PRIVATE_VOLUMES)} and those that begin with mm- are for the pod's own containers: "
    "remove the mount (models are in models-dir)",
)
PORT_NAME = _runtime_rule(
    "containers",
    "self.containers.all(c, !has(c.ports) || c.ports.all(p, !has(p.name) || "
    f"({_not_reserved('p.name', PORT_NAMES)})))",
    f"ports {', '.join(PORT_NAMES)} are the mesh's, and names that begin with mm- are reserved: "
    "rename the port",
)
PORT_NUMBER = _runtime_rule(
    "containers",
    "self.containers.all(c, !has(c.ports) || c.ports.all(p, "
    f"!(p.containerPort in [{', '.join(map(str, PORTS))}]) && "
    f"(p.containerPort < {FIRST_PORT} || p.containerPort > {LAST_PORT})))",
    f"ports {', '.join(map(str, PORTS))} and {FIRST_PORT} to {LAST_PORT} are the pod's own: "
    "let the server listen on another port",
)
VOLUMES = _runtime_rule(
    "volumes",
    f"!has(self.volumes) || self.volumes.all(v, {_not_reserved('v.name', OWN_VOLUMES)})",
    f"the pod has volumes of its own named {', '.join(OWN_VOLUMES)}, and names that begin with mm- are "
    "reserved: rename the volume",
)
ADAPTED_CONTAINER = _runtime_rule(
    "builtInAdapter",
    "!has(self.builtInAdapter) || (has(self.builtInAdapter.serverType) && "
    "self.containers.exists(c, c.name == self.builtInAdapter.serverType))",
    "no container is named as serverType says: give the model server's container that name",
)
ADAPTER_CONTAINER = _runtime_rule(
    "containers",
    "!has(self.builtInAdapter) || !has(self.builtInAdapter.serverType) || "
    "!self.containers.exists(c, c.name == self.builtInAdapter.serverType + '-adapter')",
    "the adapter's container is named as serverType says with -adapter behind: rename the other container",
)
ENDPOINT_GIVEN = _runtime_rule(
    "grpcEndpoint",
    "has(self.grpcEndpoint) && self.grpcEndpoint != ''",
    "the mesh loads and unloads models through it: set it to port:NUMBER, or unix:PATH of a socket",
)
MANAGEMENT_ENDPOINT = _runtime_rule(
    "grpcEndpoint", _endpoint("grpcEndpoint"), "must be port:NUMBER (1 to 65535) or unix:PATH"
)
DATA_ENDPOINT = _runtime_rule(
    "grpcDataEndpoint", _endpoint("grpcDataEndpoint"), "must be port:NUMBER (1 to 65535) or unix:PATH"
)
ADAPTER_PORT = _runtime_rule(
    "grpcEndpoint",
    "!has(self.builtInAdapter) || !has(self.grpcEndpoint) || self.grpcEndpoint == '' || "
    "self.grpcEndpoint.startsWith('port:')",
    "the built-in adapter listens there, on a port: set it to port:NUMBER",
)

RUNTIME = (
    ADAPTED_CONTAINER,
    ADAPTER_CONTAINER,
    CONTAINER_NAMES,
    READINESS,
    LIFECYCLE,
    MOUNTS,
    PORT_NAME,
    PORT_NUMBER,
    VOLUMES,
    ENDPOINT_GIVEN,
    MANAGEMENT_ENDPOINT,
    DATA_ENDPOINT,
    ADAPTER_PORT,
)
"""Of ServingRuntime and ClusterServingRuntime, in the order in which their author should look."""


def _both(first: str, second: str) -> str:
    """That not both texts are given; an empty one counts as not given."""
    parent, _, _ = second.rpartition(".")
    return (
        f"!has(self.{first}) || self.{first} == '' || !has(self.{parent}) || !has(self.{second}) || "
        f"self.{second} == ''"
    )


PATHS = Rule(
    "spec.path",
    _both("path", "storage.path"),
    "spec.path and spec.storage.path are both set: keep spec.storage.path",
)
SCHEMA_PATHS = Rule(
    "spec.schemaPath",
    _both("schemaPath", "storage.schemaPath"),
    "spec.schemaPath and spec.storage.schemaPath are both set: keep spec.storage.schemaPath",
)
CLAIM = Rule(
    "spec.storage.persistentVolumeClaim",
    "!has(self.storage) || !has(self.storage.persistentVolumeClaim)",
    "spec.storage.persistentVolumeClaim is not supported: name the claim in spec.storage.parameters, as "
    "type: pvc and name: CLAIM",
)
S3 = Rule(
    "spec.storage.s3",
    "!has(self.storage) || !has(self.storage.s3) || !(has(self.storage.path) || "
    "has(self.storage.schemaPath) || has(self.storage.parameters) || has(self.storage.key))",
    "spec.storage.s3 cannot be combined with path, schemaPath, parameters or key beside it: write its "
    "secretKey as spec.storage.key and its bucket into spec.storage.parameters",
)

PREDICTOR = (PATHS, SCHEMA_PATHS, CLAIM, S3)
"""Of a Predictor, in the order in which the controller looks."""

_ANNOTATION = "serving.kserve.io/"
CLASS, METRIC, TARGET = (
    f"{_ANNOTATION}{name}" for name in ("autoscalerClass", "metrics", "targetUtilizationPercentage")
)
MIN_SCALE, MAX_SCALE = f"{_ANNOTATION}min-scale", f"{_ANNOTATION}max-scale"
CLASSES = ("hpa", "none")
METRICS = ("cpu", "memory")
PERCENTAGE = "[+]?0*([1-9][0-9]?|100)"
POSITIVE = "[+]?0*[1-9][0-9]{0,8}"
INTEGER = "[+-]?[0-9]{1,9}"


def _if_given(annotation: str, expression: str) -> str:
    """`expression`, with the annotation's value for `@`, where the annotation is there."""
    value = f"variables.annotations['{annotation}']"
    return f"!('{annotation}' in variables.annotations) || {expression.replace('@', value)}"


SCALING_CLASS = Rule(
    "",
    _if_given(CLASS, f"@ in {quoted(CLASSES)}"),
    f"annotation {CLASS} must be hpa or none: correct or remove it",
)
SCALING_METRIC = Rule(
    "",
    "!variables.hpa || " + _if_given(METRIC, f"@ in {quoted(METRICS)}"),
    f"annotation {METRIC} must be cpu or memory: correct or remove it",
)
SCALING_TARGET = Rule(
    "",
    _if_given(TARGET, f"@.matches('^{PERCENTAGE}$')"),
    f"annotation {TARGET} must be a number from 1 to 100: correct or remove it",
)
SCALING_REPLICAS = Rule(
    "",
    "!variables.hpa || !has(object.spec.replicas)",
    f"spec.replicas and annotation {CLASS}: hpa both decide the number of pods: remove one of them",
)
SCALING_MIN = Rule(
    "",
    "!variables.hpa || " + _if_given(MIN_SCALE, f"@.matches('^{POSITIVE}$')"),
    f"annotation {MIN_SCALE} must be a number of at least 1: correct or remove it",
)
SCALING_MAX = Rule(
    "",
    "!variables.hpa || " + _if_given(MAX_SCALE, f"@.matches('^{INTEGER}$')"),
    f"annotation {MAX_SCALE} must be a number: correct or remove it",
)
SCALING_ORDER = Rule(
    "",
    f"!variables.hpa || !variables.min.matches('^{POSITIVE}$') || !variables.max.matches('^{INTEGER}$') || "
    "int(variables.min) <= int(variables.max)",
    f"annotation {MIN_SCALE} is larger than {MAX_SCALE}, 1 where not given: raise {MAX_SCALE}",
)


def _or(annotation: str, default: str) -> str:
    return f"'{annotation}' in variables.annotations ? variables.annotations['{annotation}'] : '{default}'"


AUTOSCALING = Policy(
    name="modelmesh-servingruntime.serving.kserve.io",
    resources=(SERVING_RUNTIME, CLUSTER_SERVING_RUNTIME),
    conditions={"multi-model": "has(object.spec.multiModel) && object.spec.multiModel", "changed": CHANGED},
    variables={
        "annotations": "has(object.metadata.annotations) ? object.metadata.annotations : {}",
        "hpa": f"'{CLASS}' in variables.annotations && variables.annotations['{CLASS}'] == 'hpa'",
        "min": _or(MIN_SCALE, "1"),
        "max": _or(MAX_SCALE, "1"),
    },
    rules=(
        SCALING_CLASS,
        SCALING_METRIC,
        SCALING_TARGET,
        SCALING_REPLICAS,
        SCALING_MIN,
        SCALING_MAX,
        SCALING_ORDER,
    ),
)
"""Autoscaling is asked for by annotations, which the rules of a CRD cannot see."""

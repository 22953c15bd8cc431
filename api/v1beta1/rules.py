"""What an InferenceService for ModelMesh must satisfy.

The CRD is shared with KServe and must take whatever KServe takes, so these are no rules of the CRD but of a
policy that looks at objects with ModelMesh's annotation only.
"""

from api.resource import Resource
from api.rules import CHANGED, Policy, Rule

INFERENCE_SERVICE = Resource("serving.kserve.io", "v1beta1", "InferenceService", "inferenceservices")

FRAMEWORKS = ("xgboost", "lightgbm", "sklearn", "tensorflow", "onnx", "pytorch", "triton", "pmml")
"""Framework blocks that ModelMesh reads, in the order in which the first one present wins."""

DEPLOYMENT_MODE = "serving.kserve.io/deploymentMode"
SERVING_RUNTIME = "serving.kserve.io/servingRuntime"
_STORAGE_URI = "^(?i)(s3|gs|pvc|https?)://[^/?#]"

_PREDICTOR = "object.spec.predictor"


def _source(field: str) -> str:
    """A list with the field of the block that counts, empty where that has none."""
    chain = "[]"
    for block in reversed(("model", *FRAMEWORKS)):
        path = f"{_PREDICTOR}.{block}"
        parts = field.split(".")
        there = " && ".join(f"has({path}.{'.'.join(parts[: n + 1])})" for n in range(len(parts)))
        chain = f"has({path}) ? ({there} ? [{path}.{field}] : []) : {chain}"
    return chain


ONE_BLOCK = Rule(
    "",
    f"!has({_PREDICTOR}.model) || size(variables.frameworks) == 0",
    "spec.predictor has both model and a framework: keep one",
    "'spec.predictor has both model and ' + variables.frameworks[0] + ': keep one'",
)
RUNTIME_ONCE = Rule(
    "",
    f"!has({_PREDICTOR}.model) || !('{SERVING_RUNTIME}' in variables.annotations)",
    f"annotation {SERVING_RUNTIME} cannot be combined with spec.predictor.model: name the runtime in "
    "spec.predictor.model.runtime",
)
FORMAT = Rule(
    "",
    f"!has({_PREDICTOR}.model) || has({_PREDICTOR}.model.modelFormat)",
    "spec.predictor.model names no format: set modelFormat.name",
)
ANY_BLOCK = Rule(
    "",
    f"has({_PREDICTOR}.model) || size(variables.frameworks) > 0",
    f"spec.predictor names no model: set model, or one of {', '.join(FRAMEWORKS)}",
)
ONE_PLACE = Rule(
    "",
    "size(variables.uri) == 0 || size(variables.path) == 0",
    "spec.predictor has both storageUri and storage.path: keep one",
)
ANY_PLACE = Rule(
    "",
    "size(variables.uri) > 0 || size(variables.path) > 0",
    "spec.predictor does not say where the model is: set storageUri or storage.path",
)
URI = Rule(
    "",
    f"size(variables.uri) == 0 || variables.uri[0].matches('{_STORAGE_URI}')",
    "storageUri must be s3://, gs://, pvc://, http:// or https:// followed by a bucket, claim or host",
    "'storageUri \\'' + variables.uri[0] + '\\' must be s3://, gs://, pvc://, http:// or https:// "
    "followed by a bucket, claim or host'",
)

POLICY = Policy(
    name="modelmesh-inferenceservice.serving.kserve.io",
    resources=(INFERENCE_SERVICE,),
    conditions={
        "modelmesh": "has(object.metadata.annotations) && "
        f"'{DEPLOYMENT_MODE}' in object.metadata.annotations && "
        f"object.metadata.annotations['{DEPLOYMENT_MODE}'] == 'ModelMesh'",
        "changed": CHANGED,
    },
    variables={
        "annotations": "has(object.metadata.annotations) ? object.metadata.annotations : {}",
        "frameworks": " + ".join(f"(has({_PREDICTOR}.{name}) ? ['{name}'] : [])" for name in FRAMEWORKS),
        "uri": _source("storageUri"),
        "path": _source("storage.path"),
    },
    rules=(ONE_BLOCK, RUNTIME_ONCE, FORMAT, ANY_BLOCK, ONE_PLACE, ANY_PLACE, URI),
)

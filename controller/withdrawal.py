"""What becomes of an object's status when it is no longer ours to serve.

An InferenceService that loses the ModelMesh annotation, or one whose namespace is disabled, must not go on
telling that it is ready: nobody looks after it any more. What we wrote is taken out, so that it reads as
an object that no controller has seen yet; fields and conditions of others stay.
"""

from __future__ import annotations

from typing import Any

from controller.status import State, Transition
from controller.status_fields import CONDITIONS

JSON = dict[str, Any]

_URLS = ("url", "grpcUrl", "restUrl")
_OURS = ("modelStatus", "observedGeneration", "url")


def inference_service(status: JSON) -> JSON | None:
    """Returns the status of an InferenceService without what we wrote; None where it tells of no mesh.

    A mesh's URLs have a scheme that no other mode of KServe uses. A status of ours without URLs is not told
    apart from KServe's. It does no harm: it says that nothing is served.
    """
    predictor = (status.get("components") or {}).get("predictor") or {}
    if not any(str(url).startswith("grpc://") for url in (status.get("url"), predictor.get("grpcUrl"))):
        return None
    left = {name: value for name, value in status.items() if name not in _OURS}
    components = dict(left.pop("components", None) or {})
    ours = components.pop("predictor", None) or {}
    rest = {name: value for name, value in ours.items() if name not in _URLS}
    if rest:
        components["predictor"] = rest
    if components:
        left["components"] = components
    conditions = [c for c in left.pop("conditions", None) or () if c.get("type") not in CONDITIONS]
    return left | ({"conditions": conditions} if conditions else {})


def predictor(status: JSON) -> JSON | None:
    """Returns the status of a Predictor as the CRD gives it to a new one; None where it is so already."""
    gone = {"conditions", "lastFailureInfo", "observedGeneration"}
    conditions = [c for c in status.get("conditions") or () if c.get("type") not in CONDITIONS]
    left = {name: value for name, value in status.items() if name not in gone} | {
        "activeModelState": str(State.PENDING),
        "available": False,
        "failedCopies": 0,
        "grpcEndpoint": "",
        "httpEndpoint": "",
        "targetModelState": str(State.NONE),
        "totalCopies": 0,
        "transitionStatus": str(Transition.UP_TO_DATE),
    }
    if conditions:
        left["conditions"] = conditions
    return None if left == status else left

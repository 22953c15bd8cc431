"""Every situation of one reconcile of a model: what is written to the object, and what comes next.

The rows are those of the original's table of outcomes (in the words of its users: "no client" is a mesh that
cannot be reached), in its order. Where ours differ on purpose, the row says why.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest

from api.proto import model_mesh_pb2 as pb
from api.v1alpha1 import Predictor, ServingRuntimeSpec
from api.v1beta1 import InferenceService
from controller.config import Configuration
from controller.errors import MeshCallError, MeshUnreachableError, NameTakenError
from controller.model_kinds import INFERENCE_SERVICE, PREDICTOR, ModelKind
from controller.reconcilers.predictor import ModelReconciler, Surroundings
from controller.runtime.errors import Conflict
from controller.runtime.reconcile import Request, Result
from controller.runtimes import Catalog

JSON = dict[str, Any]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
REQUEST = Request("ns", "m")
NO_HOME = "There are no running instances that meet the label requirements of type mt:sklearn: [mt:sklearn]"

NO_MESH = MeshUnreachableError("no mesh instance is ready")
TAKEN = NameTakenError("setVModel", "a:1", "ALREADY_EXISTS", "owner mismatch")
BROKEN = MeshCallError("anyCall", "a:1", "INTERNAL", "boom")

PREDICTOR_OBJECT: JSON = {
    "metadata": {"name": "m", "namespace": "ns", "generation": 2, "resourceVersion": "7"},
    "spec": {"modelType": {"name": "sklearn"}, "path": "p", "storage": {"s3": {"secretKey": "k"}}},
    "status": {
        "available": True,
        "transitionStatus": "UpToDate",
        "activeModelState": "Loaded",
        "targetModelState": "",
        "failedCopies": 0,
        "totalCopies": 1,
        "grpcEndpoint": "grpc://old:1",
        "httpEndpoint": "",
    },
}
NEW_PREDICTOR = {name: value for name, value in PREDICTOR_OBJECT.items() if name != "status"}
INVALID_PREDICTOR = PREDICTOR_OBJECT | {
    "spec": {"modelType": {"name": "sklearn"}, "path": "a", "storage": {"path": "b"}}
}
ISVC: JSON = {
    "metadata": PREDICTOR_OBJECT["metadata"]
    | {"annotations": {"serving.kserve.io/deploymentMode": "ModelMesh"}},
    "spec": {"predictor": {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://b/p"}}},
}
BROKEN_ISVC = ISVC | {
    "spec": {"predictor": {"model": {"modelFormat": {"name": "x"}, "storageUri": "ftp://b"}}}
}
KSERVE_ISVC = ISVC | {"metadata": PREDICTOR_OBJECT["metadata"]}


def _model(state: str, *errors: str) -> pb.ModelStatusInfo:
    return pb.ModelStatusInfo(status=pb.ModelStatusInfo.ModelStatus.Value(state), errors=errors)


def _answer(active: pb.ModelStatusInfo) -> pb.VModelStatusInfo:
    return pb.VModelStatusInfo(
        status=pb.VModelStatusInfo.DEFINED, activeModelId="a", targetModelId="a", activeModelStatus=active
    )


class Row(NamedTuple):
    """A situation and its outcome.

    Attributes:
        situation: in words.
        kind: of the object.
        object: as the cache has it; None where it is gone.
        mesh: what the mesh answers, or how the call fails.
        written: fields of the status that is written; None where nothing is.
        after: seconds until the next reconcile, None for no further one, or the error that is raised.
        registered: whether the registry has the vmodel; None where it cannot be read.
    """

    situation: str
    kind: ModelKind[Any]
    object: JSON | None
    mesh: Any
    written: JSON | None
    after: float | type[Exception] | None
    registered: bool | None = None


UNHEALTHY = {"reason": "RuntimeUnhealthy", "message": "Waiting for runtime Pod to become available"}
INVALID_FAILURE = {
    "reason": "InvalidPredictorSpec",
    "message": "spec.path and spec.storage.path are both set: keep spec.storage.path",
}
PREVIOUS = {
    name: PREDICTOR_OBJECT["status"][name] for name in ("activeModelState", "targetModelState", "available")
}

ROWS = [
    Row("not found, no client", PREDICTOR, None, NO_MESH, None, 10.0),
    # Nothing can be registered where the registry says so: no need to ask for ever, as the original does.
    Row("not found, no client, nothing registered", PREDICTOR, None, NO_MESH, None, None, registered=False),
    Row(
        "not found, no client, still registered",
        INFERENCE_SERVICE,
        None,
        NO_MESH,
        None,
        10.0,
        registered=True,
    ),
    Row(
        "not ModelMesh's, no client, registered",
        INFERENCE_SERVICE,
        KSERVE_ISVC,
        NO_MESH,
        None,
        10.0,
        registered=True,
    ),
    Row("not ModelMesh's, no client", INFERENCE_SERVICE, KSERVE_ISVC, NO_MESH, None, None, registered=False),
    Row("not found, delete ok", PREDICTOR, None, None, None, None),
    Row("not ModelMesh's, delete ok", INFERENCE_SERVICE, KSERVE_ISVC, None, None, None),
    Row("not found, other delete error", PREDICTOR, None, BROKEN, None, MeshCallError),
    # The original writes nothing, so that its users see nothing.
    Row(
        "convert error",
        INFERENCE_SERVICE,
        BROKEN_ISVC,
        pb.VModelStatusInfo(),
        {
            "modelStatus": {
                "transitionStatus": "InvalidSpec",
                "lastFailureInfo": {
                    "reason": "InvalidPredictorSpec",
                    "message": "storageUri 'ftp://b' must be s3://, gs://, pvc://, http:// or https:// "
                    "followed by a bucket, claim or host",
                },
                "states": {"activeModelState": "Pending", "targetModelState": ""},
                "copies": {"failedCopies": 0, "totalCopies": 0},
            }
        },
        None,
    ),
    # As above: a new object says at once what it waits for.
    Row(
        "valid and new, no client",
        PREDICTOR,
        NEW_PREDICTOR,
        NO_MESH,
        {"available": False, "activeModelState": "Pending", "transitionStatus": "UpToDate"},
        3.0,
    ),
    Row(
        "invalid spec, no client",
        PREDICTOR,
        INVALID_PREDICTOR,
        NO_MESH,
        {
            "transitionStatus": "InvalidSpec",
            "lastFailureInfo": INVALID_FAILURE,
            "grpcEndpoint": "grpc://old:1",
        }
        | PREVIOUS,
        3.0,
    ),
    Row(
        "invalid spec, the old model serves",
        PREDICTOR,
        INVALID_PREDICTOR,
        _answer(_model("NOT_LOADED")),
        {
            "transitionStatus": "InvalidSpec",
            "lastFailureInfo": INVALID_FAILURE,
            "activeModelState": "Standby",
            "available": True,
            "grpcEndpoint": "grpc://modelmesh-serving.ns:8033",
        },
        None,
    ),
    Row(
        "invalid spec, the old model is loading",
        PREDICTOR,
        INVALID_PREDICTOR,
        _answer(_model("LOADING")),
        {"transitionStatus": "InvalidSpec", "activeModelState": "Loading"},
        1.0,
    ),
    Row(
        "invalid spec, other call error",
        PREDICTOR,
        INVALID_PREDICTOR,
        BROKEN,
        {"transitionStatus": "InvalidSpec", "lastFailureInfo": INVALID_FAILURE},
        MeshCallError,
    ),
    Row(
        "setVModel ok, loaded",
        PREDICTOR,
        NEW_PREDICTOR,
        _answer(_model("LOADED")),
        {"available": True, "activeModelState": "Loaded", "transitionStatus": "UpToDate"},
        None,
    ),
    Row(
        "setVModel ok, loading",
        INFERENCE_SERVICE,
        ISVC,
        _answer(_model("LOADING")),
        {
            "modelStatus": {
                "transitionStatus": "UpToDate",
                "states": {"activeModelState": "Loading", "targetModelState": ""},
                "copies": {"failedCopies": 0, "totalCopies": 0},
            },
            "url": "grpc://modelmesh-serving.ns:8033",
        },
        1.0,
    ),
    Row(
        "setVModel ok, no pod of a supporting runtime",
        PREDICTOR,
        NEW_PREDICTOR,
        _answer(_model("LOADING_FAILED", NO_HOME)),
        {"available": False, "activeModelState": "Loading"},
        3.0,
    ),
    Row(
        "setVModel ok, failed",
        PREDICTOR,
        NEW_PREDICTOR,
        _answer(_model("LOADING_FAILED", "boom")),
        {"available": False, "activeModelState": "FailedToLoad"},
        None,
    ),
    Row(
        "setVModel, no addresses",
        PREDICTOR,
        PREDICTOR_OBJECT,
        NO_MESH,
        {"transitionStatus": "UpToDate", "grpcEndpoint": "grpc://old:1"} | PREVIOUS,
        3.0,
    ),
    # The original backs off up to a quarter of an hour, though the other object may go at any time.
    Row(
        "setVModel, name taken",
        PREDICTOR,
        PREDICTOR_OBJECT,
        TAKEN,
        {
            "transitionStatus": "UpToDate",
            "lastFailureInfo": {
                "reason": "InvalidPredictorSpec",
                "message": "Another kind of object already serves under the name m; rename one of them",
            },
        },
        10.0,
    ),
    Row("setVModel, other error", PREDICTOR, PREDICTOR_OBJECT, BROKEN, None, MeshCallError),
]


class _Objects:
    unparsable: frozenset[Request] = frozenset()

    def __init__(self, obj: Any) -> None:
        self._obj = obj

    def get(self, name: str, namespace: str = "") -> Any:
        assert (namespace, name) == REQUEST
        return self._obj


class _Mesh:
    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.calls: list[Any] = []

    async def _call(self, request: Any) -> Any:
        self.calls.append(request)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    set_vmodel = get_vmodel_status = delete_vmodel = _call


class _Client:
    def __init__(self, error: Exception | None = None) -> None:
        self.written: JSON | None = None
        self._error = error

    async def replace(self, resource: Any, obj: JSON, *, subresource: str = "") -> JSON:
        del resource
        assert subresource == "status"
        if self._error is not None:
            raise self._error
        self.written = obj
        return obj


class _Everything:
    def enabled(self, name: str) -> bool:
        return bool(name)


class _Recorder:
    def __init__(self) -> None:
        self.reasons: list[str] = []

    async def event(self, obj: Any, kind: str, reason: str, message: str) -> None:
        assert obj.name == REQUEST.name
        assert kind
        assert message
        self.reasons.append(reason)


RUNTIME = ServingRuntimeSpec.parse(
    {"containers": [], "multiModel": True, "supportedModelFormats": [{"name": "sklearn", "autoSelect": True}]}
)


def _reconciler(
    row: Row,
    client: _Client,
    mesh: _Mesh,
    registered: Callable[[str, str], bool | None],
    recorder: _Recorder | None = None,
) -> ModelReconciler[Any]:
    types: dict[Any, Any] = {PREDICTOR.source: Predictor, INFERENCE_SERVICE.source: InferenceService}
    obj = None if row.object is None else types[row.kind.source].parse(row.object)
    parts: dict[str, Any] = {
        "client": client,
        "recorder": recorder or _Recorder(),
        "scope": _Everything(),
        "configuration": Configuration,
        "catalog": lambda _: Catalog({"mlserver": RUNTIME}, rest=True),
        "mesh": lambda _: mesh,
        "registered": registered,
        "now": lambda: NOW,
    }
    objects: Any = _Objects(obj)
    return ModelReconciler(row.kind, objects, Surroundings(**parts))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.situation)
async def test_outcomes(row: Row) -> None:
    client, mesh = _Client(), _Mesh(row.mesh)
    reconciler = _reconciler(row, client, mesh, lambda *_: row.registered)
    if isinstance(row.after, type):
        with pytest.raises(row.after):
            await reconciler.reconcile(REQUEST)
    else:
        assert await reconciler.reconcile(REQUEST) == Result(row.after)
    assert len(mesh.calls) == 1
    if row.written is None:
        assert client.written is None
        return
    assert client.written is not None
    status = client.written["status"]
    assert _within(row.written, status), status
    assert status["observedGeneration"] == 2


def _within(part: Any, whole: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(_within(value, whole.get(key)) for key, value in part.items())
    return bool(part == whole)


async def test_the_failure_of_lost_pods_has_neither_time_nor_place() -> None:
    client, mesh = _Client(), _Mesh(NO_MESH)
    row = Row("", PREDICTOR, PREDICTOR_OBJECT, NO_MESH, None, None)
    await _reconciler(row, client, mesh, lambda *_: None).reconcile(REQUEST)
    assert client.written is not None
    failure = client.written["status"]["lastFailureInfo"]
    assert failure.pop("modelId").startswith("m__ksp-")
    assert failure == UNHEALTHY


async def test_a_taken_name_has_no_model_id() -> None:
    client = _Client()
    row = Row("", PREDICTOR, PREDICTOR_OBJECT, TAKEN, None, None)
    await _reconciler(row, client, _Mesh(TAKEN), lambda *_: None).reconcile(REQUEST)
    assert client.written is not None
    assert client.written["status"]["lastFailureInfo"].keys() == {"reason", "message"}


async def test_a_refused_registration_is_told_on_the_object() -> None:
    row = Row("", PREDICTOR, PREDICTOR_OBJECT, BROKEN, None, None)
    recorder = _Recorder()
    with pytest.raises(MeshCallError):
        await _reconciler(row, _Client(), _Mesh(BROKEN), lambda *_: None, recorder).reconcile(REQUEST)
    assert recorder.reasons == ["RegistrationRefused"]


async def test_a_conflict_of_the_status_write_is_left_to_the_queue() -> None:
    client = _Client(Conflict("changed meanwhile"))
    row = Row("", PREDICTOR, NEW_PREDICTOR, None, None, None)
    with pytest.raises(Conflict):
        await _reconciler(row, client, _Mesh(_answer(_model("LOADED"))), lambda *_: None).reconcile(REQUEST)


async def test_the_same_answer_again_writes_nothing() -> None:
    answer = _answer(_model("LOADED"))
    client = _Client()
    row = Row("", INFERENCE_SERVICE, ISVC, None, None, None)
    await _reconciler(row, client, _Mesh(answer), lambda *_: None).reconcile(REQUEST)
    again = _Client()
    await _reconciler(row._replace(object=client.written), again, _Mesh(answer), lambda *_: None).reconcile(
        REQUEST
    )
    assert again.written is None

"""InferenceServices and Predictors: tells the mesh what each wants, and shows what the mesh says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import structlog

from api.meta import KubeObject
from api.proto import model_mesh_pb2 as pb
from controller import labels, model_id, model_policy
from controller import status as machine
from controller.errors import InvalidSpecError, MeshCallError, MeshUnreachableError, NameTakenError
from controller.readiness import notices
from controller.runtime.errors import NotFound
from controller.runtime.reconcile import Request, Result
from controller.status import ModelStatus, Urls

if TYPE_CHECKING:
    from collections.abc import Callable

    from api.v1alpha1 import PredictorSpec
    from controller.config import Configuration
    from controller.mesh_client import Mesh
    from controller.model_kinds import ModelKind
    from controller.runtime.client import Client
    from controller.runtime.events import EventRecorder
    from controller.runtime.informer import Informer
    from controller.runtimes import Catalog
    from controller.scope import Scope

T = TypeVar("T", bound=KubeObject)

_log = structlog.get_logger(__name__)

_DELETE_RETRY_S = 10.0
_NAME_TAKEN_RETRY_S = 10.0
"""Nothing tells when the other object gives the name up; the usual back-off would soon wait for minutes."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What both kinds are reconciled with.

    Attributes:
        client: the API server.
        recorder: records Events.
        scope: the served namespaces.
        configuration: returns the configuration in effect.
        catalog: returns the runtimes of a namespace.
        mesh: returns the mesh of a namespace.
        registered: tells whether a namespace's registry has a vmodel; None while it cannot be read.
        now: returns the present time.
    """

    client: Client
    recorder: EventRecorder
    scope: Scope
    configuration: Callable[[], Configuration]
    catalog: Callable[[str], Catalog]
    mesh: Callable[[str], Mesh]
    registered: Callable[[str, str], bool | None]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


def urls(configuration: Configuration, namespace: str) -> Urls:
    """Returns where inference requests to a namespace's mesh go."""
    host = f"{configuration.inference_service_name}.{namespace}"
    proxy = configuration.rest_proxy
    scheme = "https" if configuration.tls.secret_name else "http"
    return Urls(
        grpc=f"grpc://{host}:{configuration.inference_service_port}",
        rest=f"{scheme}://{host}:{proxy.port}" if proxy.enabled else "",
    )


class ModelReconciler(Generic[T]):
    """Reconciles one of the two kinds.

    Args:
        kind: which.
        objects: the cache of that kind.
        surroundings: what it works with.
    """

    def __init__(self, kind: ModelKind[T], objects: Informer[T], surroundings: Surroundings) -> None:
        self._kind = kind
        self._objects = objects
        self._with = surroundings
        self._served: set[Request] = set()

    async def reconcile(self, request: Request) -> Result:
        """Registers or removes the model, and writes the object's status where it changed."""
        obj = self._objects.get(request.name, request.namespace)
        if not self._with.scope.enabled(request.namespace):
            # Only what this process served is its to take back: the namespace may be another controller's.
            if obj is not None and request in self._served:
                await self._withdraw(obj)
            self._served.discard(request)
            return Result()
        if obj is None and request in self._objects.unparsable:
            # Its model must stay: only an object that is known to be gone takes its model along.
            return Result()
        if obj is None or not self._kind.is_ours(obj):
            self._served.discard(request)
            if obj is not None:
                await self._withdraw(obj)
            return await self._remove(request, gone=obj is None)
        self._served.add(request)
        try:
            spec = self._kind.spec(obj)
        except InvalidSpecError as error:
            return await self._invalid(obj, "", error)
        id_ = model_id.concrete_id(obj.name, self._kind.source, spec)
        try:
            self._kind.check(spec)
            policy = model_policy.read(obj.metadata.annotations)
        except InvalidSpecError as error:
            return await self._invalid(obj, id_, error)
        return await self._register(obj, id_, spec, policy)

    async def _register(self, obj: T, id_: str, spec: PredictorSpec, policy: pb.ModelPolicy) -> Result:
        raw = obj.dump()
        previous = self._kind.fields.read(raw)
        support = self._with.catalog(obj.namespace).support(spec)
        path, _, _ = model_id.storage_fields(spec)
        call = pb.SetVModelRequest(
            vModelId=obj.name,
            targetModelId=id_,
            modelInfo=pb.ModelInfo(type=labels.model_type(spec), path=path, key=model_id.model_key(spec)),
            autoDeleteTargetModel=True,
            loadNow=obj.metadata.deletion_timestamp is None and machine.load_now(previous),
            owner=self._kind.source,
            policy=policy,
        )
        now = self._with.now()
        try:
            info = await self._with.mesh(obj.namespace).set_vmodel(call)
        except MeshUnreachableError as error:
            _log.debug("mesh unreachable", namespace=obj.namespace, name=obj.name, error=str(error))
            status = machine.unreachable(previous, id_, support, now)
        except NameTakenError:
            message = f"Another kind of object already serves under the name {obj.name}; rename one of them"
            await self._show(obj, raw, previous, machine.name_taken(previous, message), id_)
            return Result(_NAME_TAKEN_RETRY_S)
        except MeshCallError as error:
            message = f"The mesh did not take the model: {error.code}: {error.details} (it is tried again)"
            await self._with.recorder.event(obj, "Warning", "RegistrationRefused", message)
            raise
        else:
            status = machine.updated(previous, info, support, self._urls(obj), now)
        await self._show(obj, raw, previous, status, id_)
        return Result(machine.requeue_after(status, supported=support.exists))

    async def _invalid(self, obj: T, id_: str, error: InvalidSpecError) -> Result:
        raw = obj.dump()
        previous = self._kind.fields.read(raw)
        status = machine.invalid(previous, str(error), id_)
        call = pb.GetVModelStatusRequest(vModelId=obj.name, owner=self._kind.source)
        refused: MeshCallError | None = None
        requeue_after = None
        try:
            info = await self._with.mesh(obj.namespace).get_vmodel_status(call)
        except MeshUnreachableError:
            requeue_after = machine.NO_POD_POLL_S
        except MeshCallError as failure:
            refused = failure
        else:
            status = machine.invalid_refreshed(status, info, self._urls(obj))
            requeue_after = machine.requeue_after(status)
        await self._show(obj, raw, previous, status, id_)
        if refused is not None:
            raise refused
        return Result(requeue_after)

    async def _remove(self, request: Request, *, gone: bool) -> Result:
        call = pb.DeleteVModelRequest(vModelId=request.name, owner=self._kind.source)
        try:
            await self._with.mesh(request.namespace).delete_vmodel(call)
        except MeshUnreachableError:
            registered = self._with.registered(request.namespace, request.name)
            return Result(_DELETE_RETRY_S if registered or (registered is None and gone) else None)
        return Result()

    async def _withdraw(self, obj: T) -> None:
        """Takes back what the object's status says of a model that nobody looks after any more."""
        raw = obj.dump()
        left = self._kind.withdrawn(raw.get("status") or {})
        if left is None:
            return
        if await self._write(obj, raw | {"status": left}):
            message = "Not served by ModelMesh any more"
            await self._with.recorder.event(obj, "Normal", "Withdrawn", message)

    async def _write(self, obj: T, written: dict[str, Any]) -> bool:
        """Writes an object's status; False where the object is gone, of which we shall be told."""
        try:
            await self._with.client.replace(self._kind.type.RESOURCE, written, subresource="status")
        except NotFound:
            _log.debug("gone before its status was written", namespace=obj.namespace, name=obj.name)
            return False
        return True

    def _urls(self, obj: T) -> Urls:
        return urls(self._with.configuration(), obj.namespace)

    async def _show(
        self,
        obj: T,
        raw: dict[str, Any],
        previous: ModelStatus,
        status: ModelStatus,
        id_: str,
    ) -> None:
        """Writes the status where it differs, and then tells in Events what happened."""
        shown = raw.get("status") or {}
        wanted = self._kind.fields.write(raw, status, self._with.now())
        if wanted == shown:
            return
        if not await self._write(obj, raw | {"status": wanted}):
            return
        for notice in notices(previous, status, id_):
            await self._with.recorder.event(obj, notice.type, notice.reason, notice.message)

"""Why things are as they are: where a model is, what happened to it, and what would have to change.

Answers come from the registry and from what instances remember; an instance that does not answer in time is
left out, for whoever asks wants to know now.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from api.proto.mesh_peer_pb2 import DescribeRequest, RecallReply, RecallRequest
from api.proto.model_mesh_pb2 import (
    ExplainInstanceRequest,
    ExplainMeshRequest,
    ExplainModelRequest,
    InstanceExplanation,
    InstanceInfo,
    MeshExplanation,
    ModelEvent,
    ModelExplanation,
    ModelStatusInfo,
)
from mesh.bytes import Handler
from mesh.calls import handler
from mesh.constraints import TypeConstraints
from mesh.copies import FailureTerms
from mesh.ensure import Ensurer
from mesh.errors import InvalidRequestError, MeshError, ModelNotFoundError, RuntimeDownError
from mesh.journal import Journal
from mesh.loading import Loader
from mesh.peer import SERVICE, Peers
from mesh.placement import Candidate, Placement, Reason
from mesh.registry import Registry
from mesh.scaling import Usage
from mesh.status import StatusReporter
from store.records import NOTHING, InstanceRecord, ModelRecord, Resources

ANSWER_SECONDS = 2.0
"""How long other instances have to tell what they remember."""
MIB = 1 << 20


class Explainer:
    """Answers questions at the ports for clients and for peers."""

    def __init__(
        self,
        registry: Registry,
        loader: Loader,
        ensurer: Ensurer,
        status: StatusReporter,
        peers: Peers,
        journal: Journal,
        usage: Usage,
        *,
        constraints: Callable[[], TypeConstraints],
        failure_terms: FailureTerms,
        own_record: Callable[[], InstanceRecord],
        now: Callable[[], int],
    ) -> None:
        self._registry = registry
        self._loader = loader
        self._ensurer = ensurer
        self._status = status
        self._peers = peers
        self._journal = journal
        self._usage = usage
        self._constraints = constraints
        self._failure_terms = failure_terms
        self._own_record = own_record
        self._now = now

    def handlers(self) -> dict[str, Handler]:
        """The methods for users, by their names."""
        return {
            "mmesh.ModelMesh/explainModel": handler(ExplainModelRequest, self.model),
            "mmesh.ModelMesh/explainInstance": handler(ExplainInstanceRequest, self.instance),
            "mmesh.ModelMesh/explainMesh": handler(ExplainMeshRequest, self.mesh),
        }

    def peer_handlers(self) -> dict[str, Handler]:
        """The methods for peers, by their names."""

        async def recall(request: RecallRequest) -> RecallReply:
            return RecallReply(events=self._recalled(request.model_id))

        async def describe(_: DescribeRequest) -> InstanceExplanation:
            return self._described()

        return {
            f"{SERVICE}/Recall": handler(RecallRequest, recall),
            f"{SERVICE}/Describe": handler(DescribeRequest, describe),
        }

    async def model(self, request: ExplainModelRequest) -> ModelExplanation:
        """Explains a model or a vmodel. Raises ModelNotFoundError."""
        if not request.name:
            raise InvalidRequestError("must provide the name of a model or vmodel")
        alias, model_id = "", request.name
        try:
            record = await self._registry.find(model_id)
        except ModelNotFoundError:
            vmodel = await self._registry.find_vmodel(request.name)
            if vmodel is None:
                raise
            alias, model_id = request.name, vmodel.active
            record = await self._registry.find(model_id)
        placement = self._ensurer.placement(record, record.size or NOTHING, last_used=self._now())
        status = self._status.model(model_id)
        loaded = status.status in {ModelStatusInfo.LOADED, ModelStatusInfo.LOADING}
        events = await self._remembered(model_id)
        required = self._constraints().of(record.type).required
        remedy = "" if loaded else _remedy(record, placement, self._ensurer.candidates(), required)
        if placement.reason is Reason.FAILED:
            remedy = f"{remedy}; it is tried again {_when(self._next_try(record))} or when it changes"
        return ModelExplanation(
            summary=_summary(model_id, status, placement, remedy, events),
            modelId=model_id,
            vModelId=alias,
            type=record.type,
            size=record.size.memory if record.size else 0,
            lastUsed=max(0, record.last_used),
            status=status,
            placement=placement.instance_id or "",
            reason=placement.reason.value,
            remedy=remedy,
            events=events,
        )

    async def instance(self, request: ExplainInstanceRequest) -> InstanceExplanation:
        """Explains an instance. Raises InvalidRequestError, and RuntimeDownError where it does not answer."""
        instance_id = request.instanceId
        if instance_id in {"", self._registry.instance_id}:
            return self._described()
        row = self._registry.instances.get(instance_id)
        if row is None:
            known = ", ".join(sorted(id_ for id_, _ in self._registry.instances.items()))
            raise InvalidRequestError(f"there is no instance {instance_id}; those that there are: {known}")
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                message = await self._peers.ask(row.value.address, "Describe", DescribeRequest())
        except TimeoutError:
            raise RuntimeDownError(f"instance {instance_id} does not answer") from None
        return InstanceExplanation.FromString(message)

    async def mesh(self, _: ExplainMeshRequest) -> MeshExplanation:
        """What there is in the mesh."""
        census = self._registry.census
        rows = {id_: row.value for id_, row in self._registry.instances.items()}
        rows[self._registry.instance_id] = self._own_record()
        return MeshExplanation(
            instances=[self._info(id_, record) for id_, record in sorted(rows.items())],
            registered=census.managed,
            loaded=census.loaded,
            failed=census.failed,
            vModels=len(self._registry.vmodels),
        )

    def _described(self) -> InstanceExplanation:
        held = []
        for copy in self._loader.cache.in_order():
            record = self._registry.peek(copy.model_id) or ModelRecord()
            held.append(
                InstanceExplanation.HeldModel(
                    modelId=copy.model_id,
                    phase=copy.phase.value,
                    size=copy.size.memory,
                    lastUsed=max(0, copy.last_used),
                    rpm=self._usage.rpm(copy.model_id),
                    pinned=record.pinned,
                    priority=record.priority,
                )
            )
        return InstanceExplanation(
            instance=self._info(self._registry.instance_id, self._own_record()), models=held
        )

    def _info(self, instance_id: str, record: InstanceRecord) -> InstanceInfo:
        return InstanceInfo(
            instanceId=instance_id,
            address=record.address,
            node=record.location,
            zone=record.zone,
            labels=record.labels,
            version=record.version,
            ready=record.ready,
            leaving=record.shutdown,
            leader=self._registry.leader() == instance_id,
            capacity=record.capacity.memory,
            used=record.used.memory,
            copies=record.count,
            loading=record.loading,
            loadSlots=record.load_slots,
            rpm=record.rpm,
            oldestUse=max(0, record.lru_time),
        )

    def _recalled(self, model_id: str) -> list[ModelEvent]:
        own = self._registry.instance_id
        return [
            ModelEvent(time=event.time, location=own, what=event.what, why=event.why)
            for event in self._journal.of(model_id)
        ]

    async def _remembered(self, model_id: str) -> list[ModelEvent]:
        """What all instances that answer in time remember, the oldest first."""
        own = self._registry.instance_id
        addresses = [row.value.address for id_, row in self._registry.instances.items() if id_ != own]

        async def ask(address: str) -> Sequence[ModelEvent]:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    message = await self._peers.ask(address, "Recall", RecallRequest(model_id=model_id))
            except (MeshError, TimeoutError):
                return ()
            return RecallReply.FromString(message).events

        told = await asyncio.gather(*map(ask, addresses))
        events = [*self._recalled(model_id), *(event for events in told for event in events)]
        return sorted(events, key=lambda event: event.time)

    def _next_try(self, record: ModelRecord) -> int:
        return min((self._failure_terms.retry_at(record, id_) for id_ in record.failed), default=self._now())


def _remedy(
    record: ModelRecord, placement: Placement, candidates: Sequence[Candidate], required: Sequence[str]
) -> str:
    """What would have to change so that a model without a copy can be loaded."""
    if placement.reason is Reason.NO_LABELS:
        return f"run a server with the labels {', '.join(required)}, or change what type {record.type} needs"
    if placement.reason is Reason.TOO_LARGE:
        largest = max((each.capacity for each in candidates), key=lambda each: each.memory, default=NOTHING)
        return f"give an instance {_mib(record.size or NOTHING)}; the largest has {_mib(largest)}"
    if placement.reason is Reason.NOT_READY:
        return "the model servers of those instances have to become ready; their logs tell more"
    if placement.reason is Reason.FAILED:
        texts = {record.failures[id_].msg for id_ in record.failed if id_ in record.failures}
        return f"mend what the model server says: {'; '.join(sorted(texts))}"
    if placement.reason in {Reason.OLDEST, Reason.OLDEST_HERE}:
        return "nothing: a request loads it, and what was unused for longest makes room"
    return "nothing: a request loads it"


def _summary(
    model_id: str,
    status: ModelStatusInfo,
    placement: Placement,
    remedy: str,
    events: Sequence[ModelEvent],
) -> str:
    loaded = [info for info in status.modelCopyInfos if info.copyStatus == ModelStatusInfo.LOADED]
    if loaded:
        where = ", ".join(f"{info.location} (since {_when(info.time)})" for info in loaded)
        why = next((event.why for event in reversed(events) if event.what.startswith("placed")), "")
        return f"{model_id} is loaded on {where}: {why}" if why else f"{model_id} is loaded on {where}"
    if status.status == ModelStatusInfo.LOADING:
        where = ", ".join(info.location for info in status.modelCopyInfos) or "an instance"
        return f"{model_id} is being loaded on {where}"
    last = next((event for event in reversed(events) if event.what in {"unloaded", "not loaded"}), None)
    past = f"; {last.what} on {last.location} at {_when(last.time)}: {last.why}" if last else ""
    if placement.instance_id:
        return f"{model_id} is not loaded{past}; a request would load it on {placement.instance_id}"
    return f"{model_id} cannot be loaded: {placement.reason.value}{past}; {remedy}"


def _mib(size: Resources) -> str:
    return f"{size.memory / MIB:.1f} MiB"


def _when(time: int) -> str:
    return datetime.fromtimestamp(time / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

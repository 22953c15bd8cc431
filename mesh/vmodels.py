"""Vmodels: aliases of models that move to another model only when that one can serve.

A vmodel refers to its active model and, while it moves, to its target; a model counts the vmodels that refer
to it. Both are changed in one transaction, so that counts never leak. The leader drives what moves: it has
the target loaded, then switches.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import structlog
from msgspec.structs import replace

from mesh import references
from mesh.errors import (
    InvalidRequestError,
    MeshError,
    ModelExistsError,
    ModelNotFoundError,
    PreconditionError,
    VModelNotFoundError,
)
from mesh.limits import check_sizes
from mesh.policy import Policy
from mesh.registry import Registry
from mesh.writer import MAX_CONFLICTS
from store.records import ModelRecord, VModelRecord
from store.table import Entry

SYNC_SECONDS = 240.0
"""How long a synchronous setVModel waits for the move; the original's four minutes."""
RETRY_SECONDS = (5.0, 60.0)
"""First and longest pause before a target that could not be loaded is tried again (each instance has its own
pauses besides)."""
HOUR_MS = 3_600_000
FRESH_MS, STALE_MS = 1 * HOUR_MS, 6 * HOUR_MS
"""A new model counts as last used so long ago: it displaces nothing that was used more recently."""

log = structlog.get_logger(__name__)
Models = dict[str, ModelRecord | None]


@dataclass(frozen=True, slots=True)
class NewModel:
    """What a model is."""

    type: str
    path: str
    key: str

    def describes(self, record: ModelRecord) -> bool:
        """Whether it is the same model."""
        return (self.type, self.path, self.key) == (record.type, record.path, record.key)


@dataclass(frozen=True, slots=True)
class SetVModel:
    """A request to create or move a vmodel."""

    vmodel_id: str
    target: str
    model: NewModel | None = None
    owner: str = ""
    expected_target: str = ""
    update_only: bool = False
    auto_delete: bool = False
    load_now: bool = False
    force: bool = False
    sync: bool = False
    policy: Policy | None = None


class VModels:
    """The vmodels of one mesh. Run `drive` as a task on every instance; it acts on the leader's.

    `ensure` has a model (id, last used in ms since 1970) loaded, with so many copies if there is room.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        ensure: Callable[[str, int, int], Awaitable[None]],
        now: Callable[[], int],
        default_owner: str = "",
    ) -> None:
        self._registry = registry
        self._ensure = ensure
        self._now = now
        self._default_owner = default_owner
        self._moving: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        registry.vmodels.subscribe(self._on_change)

    async def set(self, request: SetVModel) -> VModelRecord:
        """Creates a vmodel or moves it. Raises the MeshError that says why not."""
        if not request.vmodel_id or not request.target:
            raise InvalidRequestError("must provide non-empty vModelId and targetModelId")
        check_sizes(vModelId=request.vmodel_id, targetModelId=request.target, owner=request.owner)
        if model := request.model:
            check_sizes(type=model.type, path=model.path, key=model.key)
        if request.expected_target:
            await self._registry.refresh_vmodel(request.vmodel_id)
        for _ in range(MAX_CONFLICTS):
            current = await self._registry.find_vmodel(request.vmodel_id)
            self._check(request, current)
            target = self._registry.peek(request.target)
            if target is None:
                await self._registry.refresh(request.target)
                target = self._registry.peek(request.target)
            new, models = self._plan(request, current, target)
            if (new == current and not models) or await self._registry.commit(
                models, {request.vmodel_id: new}
            ):
                return new
        raise PreconditionError(
            f"vmodel {request.vmodel_id} was changed by others again and again; try again"
        )

    async def delete(self, vmodel_id: str, owner: str) -> None:
        """Removes a vmodel; an unknown one, or one of another owner, is left as it is."""
        if not vmodel_id:
            raise InvalidRequestError("must provide non-empty vModelId")
        if vmodel_id not in self._registry.vmodels:
            await self._registry.refresh_vmodel(vmodel_id)
        for _ in range(MAX_CONFLICTS):
            current = await self._registry.find_vmodel(vmodel_id)
            if current is None and not self._registry.vmodels.is_corrupt(vmodel_id):
                return
            if current and owner and owner != current.owner:
                return
            if await self._registry.commit(self._recounted(current, None), {vmodel_id: None}):
                return
        raise PreconditionError(f"vmodel {vmodel_id} was changed by others again and again; try again")

    async def find(self, vmodel_id: str) -> VModelRecord | None:
        """A vmodel's record, if there is one."""
        return await self._registry.find_vmodel(vmodel_id)

    async def resolve(self, vmodel_id: str) -> str:
        """The model that serves now. Raises VModelNotFoundError."""
        record = await self._registry.find_vmodel(vmodel_id)
        if record is None:
            raise VModelNotFoundError(vmodel_id)
        return record.active

    async def resolve_again(self, vmodel_id: str, missing: str) -> str | None:
        """The model that serves where `missing`, which should, is not registered; None if there is none.

        The store is asked, and a vmodel that was moving goes to its target: there is nothing to stay for.
        """
        await self._registry.refresh_vmodel(vmodel_id)
        record = await self._registry.find_vmodel(vmodel_id)
        if record is None or record.active != missing:
            return record.active if record else None
        await self._registry.refresh(record.target)
        if not record.in_transition or self._registry.peek(record.target) is None:
            return None
        await self._switch(vmodel_id, record)
        row = self._registry.vmodels.get(vmodel_id)
        return row.value.active if row and row.value.active != missing else None

    async def settled(self, vmodel_id: str, target: str) -> None:
        """Waits until the move to `target` has ended, somehow, for at most four minutes."""
        try:
            async with asyncio.timeout(SYNC_SECONDS):
                while True:
                    row = self._registry.vmodels.get(vmodel_id)
                    if (
                        row is None
                        or row.value.failed
                        or not row.value.in_transition
                        or row.value.target != target
                    ):
                        return
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            log.warning("vmodel still moving", vmodel=vmodel_id, target=target, seconds=SYNC_SECONDS)

    async def drive(self) -> None:
        """Moves what is to be moved, until cancelled."""
        try:
            while True:
                if self._registry.is_leader():
                    for vmodel_id, row in list(self._registry.vmodels.items()):
                        if row.value.in_transition and vmodel_id not in self._moving:
                            self._begin(vmodel_id)
                self._changed.clear()
                try:
                    async with asyncio.timeout(RETRY_SECONDS[0]):
                        await self._changed.wait()
                except TimeoutError:
                    continue
        finally:
            for task in self._moving.values():
                task.cancel()

    def _begin(self, vmodel_id: str) -> None:
        task = asyncio.create_task(self._move(vmodel_id), name=f"move {vmodel_id}")
        self._moving[vmodel_id] = task
        task.add_done_callback(lambda ended: self._end(vmodel_id, ended))

    def _end(self, vmodel_id: str, task: asyncio.Task[None]) -> None:
        if self._moving.get(vmodel_id) is task:
            del self._moving[vmodel_id]

    async def _move(self, vmodel_id: str) -> None:
        pause = RETRY_SECONDS[0]
        row = self._registry.vmodels.get(vmodel_id)
        while row and row.value.in_transition and self._registry.is_leader():
            record = row.value
            active = self._registry.peek(record.active)
            try:
                if copies := self._copies(record.active):
                    await self._ensure(record.target, active.last_used if active else 0, copies)
                await self._switch(vmodel_id, record)
            except MeshError as error:
                log.info("vmodel target not loaded", vmodel=vmodel_id, target=record.target, error=str(error))
                await self._mark_failed(vmodel_id, record)
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_SECONDS[1])
            row = self._registry.vmodels.get(vmodel_id)

    async def _switch(self, vmodel_id: str, expected: VModelRecord) -> None:
        row = self._registry.vmodels.get(vmodel_id)
        if row is None or row.value.target != expected.target or not row.value.in_transition:
            return
        after = references.switched(row.value)
        if await self._registry.commit(self._recounted(row.value, after), {vmodel_id: after}):
            log.info("vmodel moved", vmodel=vmodel_id, active=expected.target)

    async def _mark_failed(self, vmodel_id: str, expected: VModelRecord) -> None:
        current = self._registry.vmodels.get(vmodel_id)
        if current and current.value == expected and not expected.failed:
            await self._registry.commit({}, {vmodel_id: replace(expected, failed=True)})

    def _check(self, request: SetVModel, current: VModelRecord | None) -> None:
        if current is None:
            if request.update_only:
                raise VModelNotFoundError(request.vmodel_id)
            if request.expected_target not in {"", request.target}:
                text = (
                    f"vmodel {request.vmodel_id} does not exist, its target is not {request.expected_target}"
                )
                raise PreconditionError(text)
            return
        if (owner := request.owner or self._default_owner) and owner != current.owner:
            raise ModelExistsError(f"vmodel {request.vmodel_id} exists with another owner ({current.owner})")
        if request.expected_target and current.target != request.expected_target:
            raise PreconditionError(
                f"the target of vmodel {request.vmodel_id} is {current.target}, not {request.expected_target}"
            )

    def _plan(
        self, request: SetVModel, current: VModelRecord | None, target: ModelRecord | None
    ) -> tuple[VModelRecord, Models]:
        lost = target is None
        if target is None or (request.model and not request.model.describes(target)):
            target = self._new_model(request, target)
        if current is None:
            owner = request.owner or self._default_owner
            new = VModelRecord(owner=owner, active=request.target, target=request.target)
        else:
            at_once = self._may_switch_at_once(current.active, request.target)
            new = references.retargeted(current, request.target, force=request.force, at_once=at_once)
            if new.target != current.target and (active := self._registry.peek(current.active)):
                target = replace(target, last_used=max(target.last_used, active.last_used))
        models = self._recounted(current, new, {request.target: target}, lost=lost)
        if request.policy and (record := models.get(request.target, target)):
            changed = request.policy.applied(record)
            if changed != target or request.target in models:
                models[request.target] = changed
        return new, models

    def _new_model(self, request: SetVModel, existing: ModelRecord | None) -> ModelRecord:
        if existing is not None:
            raise ModelExistsError(f"model {request.target} exists with another type, path or key")
        if request.model is None:
            raise ModelNotFoundError(request.target)
        if not request.model.type:
            raise InvalidRequestError("must provide a non-empty model type")
        age = FRESH_MS if request.load_now else STALE_MS
        return ModelRecord(
            type=request.model.type,
            path=request.model.path,
            key=request.model.key,
            auto_delete=request.auto_delete,
            last_used=self._now() - age,
        )

    def _recounted(
        self,
        before: VModelRecord | None,
        after: VModelRecord | None,
        known: Mapping[str, ModelRecord] = MappingProxyType({}),
        *,
        lost: bool = False,
    ) -> Models:
        """Records of models to write with a change of a vmodel; `known` ones are `lost` from the registry."""
        models: Models = {}
        for model_id, change in references.changes(before, after, lost=known if lost else ()).items():
            if record := known.get(model_id) or self._registry.peek(model_id):
                models[model_id] = references.counted(record, change)
        return models

    def _may_switch_at_once(self, active: str, target: str) -> bool:
        copies = self._copies(active)
        record = self._registry.peek(target)
        loaded = record is not None and any(self._registry.live(id_) for id_ in record.loaded)
        return copies == 0 or (copies == 1 and loaded)

    def _copies(self, model_id: str) -> int:
        record = self._registry.peek(model_id)
        return sum(self._registry.present(id_) for id_ in record.instances) if record else 0

    def _on_change(
        self, vmodel_id: str, before: Entry[VModelRecord] | None, now: Entry[VModelRecord] | None
    ) -> None:
        elsewhere = before is not None and (now is None or now.value.target != before.value.target)
        if elsewhere and (task := self._moving.pop(vmodel_id, None)):
            task.cancel()
        self._changed.set()

"""Vmodels: aliases of models that move to another model only when that one can serve.

A vmodel refers to its active model and, while it moves, to its target; a model counts the vmodels that refer
to it. Both are changed in one transaction, so that counts never leak. The leader drives what moves: it has
the target loaded, then switches.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from msgspec.structs import replace

from mesh.errors import (
    DeadlineError,
    InvalidRequestError,
    MeshError,
    ModelExistsError,
    ModelNotFoundError,
    PreconditionError,
    VModelNotFoundError,
)
from mesh.registry import MAX_CONFLICTS, Registry
from store.records import ModelRecord, VModelRecord
from store.table import Entry

SYNC_SECONDS = 240.0
"""How long a synchronous setVModel waits for the move; the original's four minutes."""
RETRY_SECONDS = 5.0
"""Pause before a target that could not be loaded is tried again (each instance has its own, longer pauses).
"""
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


class VModels:
    """The vmodels of one mesh. Run `drive` as a task on every instance; it acts on the leader's."""

    def __init__(
        self,
        registry: Registry,
        *,
        ensure: Callable[[str, int], Awaitable[None]],
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
        for _ in range(MAX_CONFLICTS):
            current = await self._registry.find_vmodel(request.vmodel_id)
            self._check(request, current)
            target = self._registry.peek(request.target)
            if target is None:
                await self._registry.refresh(request.target)
                target = self._registry.peek(request.target)
            new, models = self._plan(request, current, target)
            if new == current or await self._registry.commit(models, {request.vmodel_id: new}):
                return new
        raise PreconditionError(
            f"vmodel {request.vmodel_id} was changed by others again and again; try again"
        )

    async def delete(self, vmodel_id: str, owner: str) -> None:
        """Removes a vmodel; an unknown one, or one of another owner, is left as it is."""
        if not vmodel_id:
            raise InvalidRequestError("must provide non-empty vModelId")
        for _ in range(MAX_CONFLICTS):
            current = await self._registry.find_vmodel(vmodel_id)
            if current is None or (owner and owner != current.owner):
                return
            models: Models = {}
            for model_id in {current.active, current.target}:
                self._leave(models, model_id)
            if await self._registry.commit(models, {vmodel_id: None}):
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

    async def settled(self, vmodel_id: str, target: str) -> None:
        """Waits until the move to `target` has ended, somehow. Raises DeadlineError after four minutes."""
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
            raise DeadlineError(f"vmodel {vmodel_id} is still moving after {SYNC_SECONDS:g} s") from None

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
                    async with asyncio.timeout(RETRY_SECONDS):
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
        row = self._registry.vmodels.get(vmodel_id)
        while row and row.value.in_transition and self._registry.is_leader():
            record = row.value
            active = self._registry.peek(record.active)
            try:
                if self._copies(record.active):
                    await self._ensure(record.target, active.last_used if active else 0)
                await self._switch(vmodel_id, record)
            except MeshError as error:
                log.info("vmodel target not loaded", vmodel=vmodel_id, target=record.target, error=str(error))
                await self._mark_failed(vmodel_id, record)
                await asyncio.sleep(RETRY_SECONDS)
            row = self._registry.vmodels.get(vmodel_id)

    async def _switch(self, vmodel_id: str, expected: VModelRecord) -> None:
        current = self._registry.vmodels.get(vmodel_id)
        if current is None or current.value.target != expected.target or not current.value.in_transition:
            return
        models: Models = {}
        self._leave(models, current.value.active)
        moved = replace(current.value, active=expected.target, failed=False)
        if await self._registry.commit(models, {vmodel_id: moved}):
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
        if request.expected_target and current.target not in {request.expected_target, request.target}:
            raise PreconditionError(
                f"the target of vmodel {request.vmodel_id} is {current.target}, not {request.expected_target}"
            )

    def _plan(
        self, request: SetVModel, current: VModelRecord | None, target: ModelRecord | None
    ) -> tuple[VModelRecord, Models]:
        models: Models = {}
        if target is None or (request.model and not request.model.describes(target)):
            target = self._new_model(request, target)
        if current is None:
            self._enter(models, request, target)
            owner = request.owner or self._default_owner
            return VModelRecord(owner=owner, active=request.target, target=request.target), models
        if request.target == current.target:
            if current.in_transition and request.force:
                self._leave(models, current.active)
                return replace(current, active=current.target, failed=False), models
            return current, models
        if current.in_transition:
            self._leave(models, current.target)
        if request.target == current.active:
            return replace(current, target=current.active, failed=False), models
        active = self._registry.peek(current.active)
        self._enter(models, request, target, last_used=active.last_used if active else 0)
        moved = replace(current, target=request.target, failed=False)
        if request.force or self._may_switch_at_once(current.active, request.target):
            self._leave(models, current.active)
            moved = replace(moved, active=request.target)
        return moved, models

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

    def _enter(self, models: Models, request: SetVModel, target: ModelRecord, last_used: int = 0) -> None:
        models[request.target] = replace(
            target, refs=target.refs + 1, last_used=max(target.last_used, last_used)
        )

    def _leave(self, models: Models, model_id: str) -> None:
        record = models.get(model_id) or self._registry.peek(model_id)
        if record is not None:
            refs = max(0, record.refs - 1)
            models[model_id] = None if refs == 0 and record.auto_delete else replace(record, refs=refs)

    def _may_switch_at_once(self, active: str, target: str) -> bool:
        copies = self._copies(active)
        record = self._registry.peek(target)
        loaded = record is not None and any(self._registry.live(id_) for id_ in record.loaded)
        return copies == 0 or (copies == 1 and loaded)

    def _copies(self, model_id: str) -> int:
        record = self._registry.peek(model_id)
        return sum(self._registry.live(id_) for id_ in record.instances) if record else 0

    def _on_change(
        self, vmodel_id: str, before: Entry[VModelRecord] | None, now: Entry[VModelRecord] | None
    ) -> None:
        elsewhere = before is not None and (now is None or now.value.target != before.value.target)
        if elsewhere and (task := self._moving.pop(vmodel_id, None)):
            task.cancel()
        self._changed.set()

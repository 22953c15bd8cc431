"""Models as users manage them: register, delete, and wish to have loaded."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from msgspec.structs import replace

from mesh.ensure import Ensurer
from mesh.errors import (
    InvalidRequestError,
    MeshError,
    ModelExistsError,
    ModelNotFoundError,
    NoCapacityError,
    PreconditionError,
)
from mesh.limits import check_sizes
from mesh.policy import Policy
from mesh.registry import Registry
from mesh.vmodels import FRESH_MS, HOUR_MS, STALE_MS, NewModel
from store.records import ModelRecord

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Wish:
    """A load that somebody asked for. The last use may become later while it goes on."""

    last_used: int
    touch: bool
    task: asyncio.Task[None] | None = None


class Models:
    """The models of the mesh, seen from one instance."""

    def __init__(self, registry: Registry, ensurer: Ensurer, *, now: Callable[[], int]) -> None:
        self._registry = registry
        self._ensurer = ensurer
        self._now = now
        self._wanted: dict[str, _Wish] = {}

    def is_wanted(self, model_id: str) -> bool:
        """Whether a load that somebody asked for is under way, seen from here."""
        return model_id in self._wanted

    def has_copies(self, model_id: str) -> bool:
        """Whether the model is loaded or loading anywhere."""
        record = self._registry.peek(model_id)
        return record is not None and any(self._registry.live(id_) for id_ in record.instances)

    async def find(self, model_id: str) -> ModelRecord:
        """A model's record. Raises ModelNotFoundError."""
        return await self._registry.find(model_id)

    async def look_up(self, model_id: str) -> None:
        """Makes sure that a model that exists is known here."""
        try:
            await self._registry.find(model_id)
        except ModelNotFoundError:
            return

    async def look_up_vmodel(self, vmodel_id: str) -> None:
        """Makes sure that a vmodel that exists is known here."""
        await self._registry.find_vmodel(vmodel_id)

    async def register(
        self,
        model_id: str,
        model: NewModel,
        *,
        load_now: bool,
        last_used: int,
        policy: Policy | None = None,
    ) -> int:
        """Creates a model, or confirms that it is as described; returns when it counts as last used (ms).

        `last_used` 0 means some time ago, so that a new model displaces nothing that is in use. Raises
        InvalidRequestError where something is too long, and ModelExistsError.
        """
        check_sizes(modelId=model_id, type=model.type, path=model.path, key=model.key)
        now = self._now()
        used = min(last_used, now) if last_used else now - (FRESH_MS if load_now else STALE_MS)

        def change(record: ModelRecord | None) -> ModelRecord:
            if record is None:
                new = ModelRecord(type=model.type, path=model.path, key=model.key, last_used=used)
                return policy.applied(new) if policy else new
            if not model.describes(record):
                raise ModelExistsError(f"model {model_id} exists with another type, path or key")
            record = policy.applied(record) if policy else record
            if not load_now and used > record.last_used + HOUR_MS:
                return replace(record, last_used=used)
            return record

        await self._registry.update(model_id, change)
        return used

    async def unregister(self, model_id: str) -> None:
        """Deletes a model; its copies go when their instances see it.

        Raises PreconditionError while vmodels refer to it.
        """
        if not model_id:
            raise InvalidRequestError("must provide non-empty modelId")

        def change(record: ModelRecord | None) -> None:
            if record is not None and record.refs > 0:
                raise PreconditionError(f"model {model_id} is in use by {record.refs} vmodel(s)")

        if self._registry.peek(model_id) is None:
            await self._registry.refresh(model_id)
        await self._registry.update(model_id, change)

    async def want(self, model_id: str, *, last_used: int, sync: bool, touch: bool = True) -> None:
        """Has a model loaded; with `sync` returns when that has ended, well or not (the status tells).

        `last_used` 0 means now, or without `touch` what the record says.
        """
        record = self._registry.peek(model_id)
        used = last_used or (self._now() if touch or record is None else record.last_used)
        wish = self._wanted.get(model_id)
        if wish is None:
            wish = self._wanted[model_id] = _Wish(min(used, self._now()), touch)
            wish.task = asyncio.create_task(self._load(model_id, wish), name=f"want {model_id}")
            wish.task.add_done_callback(lambda _: self._wanted.pop(model_id, None))
        wish.last_used = max(wish.last_used, min(used, self._now()))
        wish.touch = wish.touch or touch
        if sync and wish.task:
            await asyncio.shield(wish.task)
        else:
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Gives up what was asked for."""
        tasks = [wish.task for wish in self._wanted.values() if wish.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _load(self, model_id: str, wish: _Wish) -> None:
        while True:
            last_used = wish.last_used
            try:
                await self._ensurer.ensure(model_id, last_used=last_used, urgent=False)
                if wish.touch:
                    await self._ensurer.touch(model_id, wish.last_used)
            except NoCapacityError as error:
                if wish.last_used > last_used:
                    continue  # somebody has asked since who has a better claim
                log.info("wanted model not loaded", model=model_id, error=str(error))
            except MeshError as error:
                log.info("wanted model not loaded", model=model_id, error=str(error))
            return

"""Answers the requests that found no usable copy: has one made, or says why there is none."""

import asyncio
from collections.abc import Callable

import structlog

from mesh.bytes import Miss
from mesh.ensure import Ensurer
from mesh.errors import MeshError, ModelNotFoundError, NoCapacityError
from mesh.guard import RuntimeGuard
from mesh.loading import Loader
from mesh.patience import Patience
from mesh.routes import Routes
from mesh.vmodels import VModels

log = structlog.get_logger(__name__)


class MissHandler:
    """Each miss is a task of its own, from `take` to `close`."""

    def __init__(
        self,
        own_id: str,
        vmodels: VModels,
        ensurer: Ensurer,
        loader: Loader,
        guard: RuntimeGuard,
        routes: Routes,
        *,
        now: Callable[[], int],
    ) -> None:
        self._own_id = own_id
        self._vmodels = vmodels
        self._ensurer = ensurer
        self._loader = loader
        self._guard = guard
        self._routes = routes
        self._now = now
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, miss: Miss) -> None:
        """Answers the miss in time."""
        task = asyncio.create_task(self._answer(miss), name=f"miss {miss.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Leaves what is not answered yet."""
        for task in self._tasks:
            task.cancel()

    async def _answer(self, miss: Miss) -> None:
        try:
            async with Patience(miss):
                await self._serve_or_resolve_again(miss)
            miss.serve()
        except MeshError as error:
            miss.fail(error.code.value[0], str(error), error.retry_after_ms)
        except Exception as error:
            log.exception("miss not handled", model=miss.name)
            miss.fail(MeshError.code.value[0], f"the mesh failed: {type(error).__name__}: {error}")

    async def _serve_or_resolve_again(self, miss: Miss) -> None:
        try:
            await self._serve(miss)
        except ModelNotFoundError as error:
            if not miss.is_alias or await self._vmodels.resolve_again(miss.name, error.model_id) is None:
                raise
            # The byte path looks again, and finds the alias elsewhere.
            self._routes.flush()

    async def _serve(self, miss: Miss) -> None:
        model_id = miss.model_id
        if not model_id:
            model_id = await self._vmodels.resolve(miss.name) if miss.is_alias else miss.name
        excluded = set(miss.excluded)
        if miss.failure is not None:
            excluded.discard(self._own_id)
            await self._recover(model_id, miss.failure, miss.since_tried_ms or 0)
        while True:
            left = miss.deadline_ms
            try:
                await self._ensurer.ensure(
                    model_id,
                    last_used=self._now(),
                    urgent=True,
                    excluded=excluded,
                    recorded=False,
                    deadline=None if left is None else self._now() + left,
                )
            except NoCapacityError:
                if not _more_patient(left, miss.deadline_ms):
                    raise
            else:
                break
        self._routes.flush()

    async def _recover(self, model_id: str, failure: str, since_tried_ms: int) -> None:
        """The own copy failed a request: it goes, or with a dead server all of them do.

        A copy that was loaded since the request was sent is another one, and stays.
        """
        if self._loader.loaded_since(model_id, self._now() - since_tried_ms):
            return
        if failure == "unavailable" and await self._guard.suspect():
            return
        log.warning("copy cannot serve, loading it again", model=model_id, failure=failure)
        self._loader.unload(model_id, drain=failure != "not_found", why=f"a request found it {failure}")


def _more_patient(before: int | None, now: int | None) -> bool:
    """Whether a request has joined that can wait for longer; times left, in ms."""
    return before is not None and (now is None or now > before)

"""Loading and unloading the models of one server, keeping what the SPI promises.

One at a time for each model, in the order of the requests. A load that is cancelled stops pulling at once; a
server that is already loading is left to finish, because a server whose caller has left may still keep the
model, and is then told to unload. When an unload answers, nothing of the model is left in the server or on
disk.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from adapters.errors import (
    AdapterError,
    ModelNotLoadedError,
    ServerUnreachableError,
)
from adapters.files import clear_folder, folder_name, remove
from adapters.puller.model_key import ModelKey
from adapters.sdk.adapter import Model
from adapters.sdk.follow import ServerFollower
from adapters.sdk.loads import Loads
from adapters.sdk.metrics import LOAD_SECONDS, LOADS, MODELS
from adapters.sdk.turns import Turns
from adapters.threads import in_thread

if TYPE_CHECKING:
    from adapters.puller.pull import Puller
    from adapters.sdk.adapter import ServerAdapter
    from adapters.sdk.settings import Settings

log = structlog.get_logger(__name__)

# How often a load is begun in all when the server dies under it. A model that kills its server must not do so
# for ever, and one that merely was there when it died deserves to be loaded.
_ATTEMPTS = 2
_SETTLE_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """A load as the SPI asks for it; `label` is its modelType."""

    id: str
    label: str
    path: str
    key: str


class Models:
    """The models of one server."""

    def __init__(self, adapter: ServerAdapter, settings: Settings, puller: Puller | None) -> None:
        self._adapter = adapter
        self._settings = settings
        self._puller = puller
        self._patience_s = settings.load_timeout_ms / 1000
        self._turns = Turns()
        self._loads = Loads[int]()
        self._sizes: dict[str, int] = {}
        self.server = ServerFollower(adapter, self._purge, lambda: self._sizes)
        MODELS.set_function(lambda: len(self._sizes))

    @property
    def pristine(self) -> bool:
        """Whether no model is loaded, and none that was given up is still being cleaned up."""
        return not self._sizes and not self._loads.given_up

    async def load(self, request: LoadRequest) -> int:
        """Loads a model and returns its size in bytes, measured or estimated; 0 asks to call `size`.

        Raises:
            LoadAbandonedError: an unload overtook it.
            AdapterError: it could not be loaded; nothing of it is left.
        """
        return await self._loads.run(request.id, self._load(request))

    async def unload(self, model_id: str) -> None:
        """Unloads a model, ending loads of it that are under way; unknown is success.

        Raises:
            ServerError: the server keeps the model.
            OSError: its files could not be removed.
        """
        self._loads.end(model_id)
        async with self._turns.turn(model_id):
            await self._discard(model_id)
        log.info("unloaded model", model=model_id)

    async def predict_size(self, request: LoadRequest) -> int:
        """Estimates a model's bytes in memory before it is pulled."""
        key = ModelKey.parse(request.key)
        size = key.disk_size_bytes
        if self._puller and size is None:
            size = await self._puller.size(request.path, key)
        return self._estimate(size)

    async def size(self, model_id: str) -> int:
        """Bytes of a loaded model.

        Raises:
            ModelNotLoadedError: it is not loaded.
        """
        if model_id not in self._sizes:
            raise ModelNotLoadedError(f"model {model_id} is not loaded")
        if self._adapter.measures_later:
            with contextlib.suppress(AdapterError):
                measured = await self._adapter.measured_size(model_id)
                if measured and model_id in self._sizes:
                    self._sizes[model_id] = measured
        return self._sizes.get(model_id, 0)

    async def end_loads(self) -> None:
        """Ends all loads that are under way and waits until each has cleaned up."""
        await self._loads.end_all()

    async def empty(self) -> None:
        """Unloads everything, for a mesh that begins anew; a load whose caller still waits for it goes on."""
        await self.server.renew()
        await self._loads.cleaned_up()

    async def _load(self, request: LoadRequest) -> int:
        async with self._turns.turn(request.id):
            started = asyncio.get_running_loop().time()
            self._sizes.pop(request.id, None)
            try:
                # Not before the server is up: until then its purge may remove whatever is on disk.
                await self.server.ready(self._patience_s)
                model = await self._fetch(request)
                measured = await self._tell_server(model)
            except BaseException as error:
                LOADS.labels(_code(error)).inc()
                if isinstance(error, AdapterError):
                    log.warning("load failed", model=request.id, code=error.status.name, reason=str(error))
                await self._clean_up(request.id)
                raise
            size = measured or self._estimate(model.disk_bytes)
            self._sizes[request.id] = size
            seconds = round(asyncio.get_running_loop().time() - started, 3)
            LOADS.labels("OK").inc()
            LOAD_SECONDS.observe(seconds)
            log.info("loaded model", model=request.id, type=model.type, bytes=size, seconds=seconds)
            return 0 if self._adapter.measures_later else size

    async def _fetch(self, request: LoadRequest) -> Model:
        key, path = ModelKey.parse(request.key), Path(request.path)
        if self._puller:
            pulled = await self._puller.pull(request.id, request.path, key)
            key, path = pulled.key, pulled.path
        return Model(
            id=request.id,
            type=key.type_name(request.label),
            path=path,
            schema=Path(key.schema_path) if key.schema_path else None,
            disk_bytes=key.disk_size_bytes,
        )

    async def _tell_server(self, model: Model) -> int | None:
        """Lays the model out and has it loaded, again where the server died meanwhile; its measured size."""
        for attempt in range(1, _ATTEMPTS + 1):
            epoch = await self.server.ready(self._patience_s)
            try:
                await in_thread(self._lay_out, model)
                await self._have_loaded(model)
                later = self._adapter.measures_later
                measured = None if later else await self._adapter.measured_size(model.id)
            except ServerUnreachableError as error:
                await self.server.report_unreachable(epoch, self._patience_s)
                if attempt == _ATTEMPTS:
                    raise
                log.warning("model server lost, loading again", model=model.id, reason=str(error))
            else:
                if self.server.lives_in(epoch):
                    return measured
        raise ServerUnreachableError(f"{self._adapter.title} restarted again and again during the load")

    async def _have_loaded(self, model: Model) -> None:
        call = asyncio.create_task(self._adapter.load(model))
        try:
            await asyncio.shield(call)
        except asyncio.CancelledError:
            await asyncio.wait({call}, timeout=self._patience_s)
            call.cancel()
            with contextlib.suppress(AdapterError, asyncio.CancelledError):
                await call
            raise

    def _lay_out(self, model: Model) -> None:
        folder = self._folder(model.id)
        remove(folder)
        folder.mkdir(parents=True, mode=0o755)
        self._adapter.lay_out(model, folder)

    async def _clean_up(self, model_id: str) -> None:
        """Removes what a failed load left; the unload that follows is told of what goes wrong here again."""
        try:
            await self._discard(model_id)
        except (AdapterError, OSError) as error:
            log.warning("cannot clean up after a load", model=model_id, reason=str(error))

    async def _discard(self, model_id: str) -> None:
        try:
            await self._adapter.unload(model_id)
        except ServerUnreachableError as error:
            # A server that is gone holds no models, and one that comes back is purged.
            log.info("unloading from a server that is away", model=model_id, reason=str(error))
            await self.server.report_unreachable(self.server.epoch, self._patience_s)
        self._sizes.pop(model_id, None)
        await asyncio.to_thread(self._remove_files, model_id)

    def _remove_files(self, model_id: str) -> None:
        remove(self._folder(model_id))
        if self._puller:
            self._puller.remove(model_id)

    async def _purge(self) -> None:
        """Empties server and disk, but for the files of loads that wait for the server."""
        self._sizes.clear()
        waiting = self._loads.models
        await self._settled(waiting)
        for model_id in set(await self._adapter.loaded()) - waiting:
            await self._adapter.unload(model_id)
        await asyncio.to_thread(self._purge_files, waiting)

    async def _settled(self, waiting: set[str]) -> None:
        """Waits until the server loads nothing that a dead adapter asked for; without files Triton hangs."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience_s):
                while set(await self._adapter.busy()) - waiting:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(_SETTLE_POLL_S)

    def _purge_files(self, waiting: set[str]) -> None:
        self._adapter.folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        kept = {path.name for path in self._adapter.kept}
        clear_folder(self._adapter.folder, keep=kept | {folder_name(model_id) for model_id in waiting})
        if self._puller:
            self._puller.purge(waiting | kept)

    def _folder(self, model_id: str) -> Path:
        return self._adapter.folder / folder_name(model_id)

    def _estimate(self, disk_bytes: int | None) -> int:
        """Bytes in memory by bytes on disk; 0 would make the mesh ask again."""
        estimate = int((disk_bytes or 0) * self._settings.size_multiplier)
        return estimate or self._settings.default_model_size


def _code(error: BaseException) -> str:
    if isinstance(error, AdapterError):
        return error.status.name
    return "CANCELLED" if isinstance(error, asyncio.CancelledError) else "INTERNAL"

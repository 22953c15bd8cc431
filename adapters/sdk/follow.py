"""Following a model server through its starts and deaths.

A server that dies takes its models with it, and nobody tells the mesh. So the adapter watches: whenever the
server has come up, everything from before is removed, and only then does the adapter call itself ready.
"""

from __future__ import annotations

import asyncio
import contextlib
from enum import Enum
from typing import TYPE_CHECKING

import structlog

from adapters.errors import AdapterError, ServerUnreachableError
from adapters.sdk.metrics import SERVER_LIVES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from adapters.sdk.adapter import ServerAdapter

log = structlog.get_logger(__name__)

# While the server starts it is asked this often.
_POLL_S = 0.1
# A lost connection to a server that lives is made again within this time.
_HICCUP_S = 1.0
# A purge that failed is tried again after this time.
_RETRY_S = 1.0


class State(Enum):
    """What the adapter may say of its server; FAILING: old files cannot be removed, which is tried again."""

    STARTING = "STARTING"
    READY = "READY"
    FAILING = "FAILING"


class ServerFollower:
    """Knows whether the server can be used, and in which of its lives (`epoch`) it is.

    `purge` removes all models from server and disk; `holds` names those that the server ought to have now.
    """

    def __init__(
        self,
        adapter: ServerAdapter,
        purge: Callable[[], Awaitable[None]],
        holds: Callable[[], Collection[str]],
    ) -> None:
        self._adapter = adapter
        self._purge = purge
        self._holds = holds
        self._doubt = asyncio.Event()
        self._changed = asyncio.Condition()
        self._renew = False
        self.state = State.STARTING
        self.epoch = 0
        self.version = ""

    async def run(self) -> None:
        """Follows the server until cancelled."""
        while True:
            while not await self._adapter.is_ready():  # noqa: ASYNC110 - another process, no event to await
                await asyncio.sleep(_POLL_S)
            try:
                await self._purge()
                self.version = await self._adapter.version()
            except OSError as error:
                log.exception("cannot remove old models", reason=str(error))
                await self._become(State.FAILING)
                await asyncio.sleep(_RETRY_S)
                continue
            except AdapterError as error:
                log.warning("model server not usable yet", server=self._adapter.title, reason=str(error))
                await asyncio.sleep(_RETRY_S)
                continue
            self._renew = False
            self.epoch += 1
            SERVER_LIVES.inc()
            await self._become(State.READY)
            await self._until_over()
            await self._become(State.STARTING)

    async def ready(self, timeout_s: float) -> int:
        """Waits until the server can be used and returns its epoch.

        Raises:
            ServerUnreachableError: not within `timeout_s` seconds.
        """
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: self.state is State.READY)
        except TimeoutError as error:
            raise ServerUnreachableError(
                f"{self._adapter.title} was not ready within {timeout_s:g} s; its log says why",
            ) from error
        return self.epoch

    def lives_in(self, epoch: int) -> bool:
        """Whether the server is still in that life, as far as is known."""
        return self.state is State.READY and self.epoch == epoch

    async def report_unreachable(self, epoch: int, timeout_s: float) -> None:
        """Tells that the server gave no answer in `epoch`; returns when it is known whether it died."""
        if self.lives_in(epoch):
            self._doubt.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s), self._changed:
                    await self._changed.wait_for(lambda: not self._doubt.is_set())

    async def renew(self) -> None:
        """Begins a new life of the same server: everything is purged before the state is READY again."""
        self._renew = True
        self._doubt.set()
        async with self._changed:
            if self.state is State.READY:
                self.state = State.STARTING
                self._changed.notify_all()

    async def _become(self, state: State) -> None:
        if state is not self.state:
            log.info("model server", server=self._adapter.title, state=state.value, epoch=self.epoch)
        async with self._changed:
            self.state = state
            self._doubt.clear()
            self._changed.notify_all()

    async def _until_over(self) -> None:
        """Returns when this life of the server is over: its process went, or a renewal was asked for."""
        while not self._renew:
            lost = asyncio.create_task(self._adapter.wait_lost())
            doubt = asyncio.create_task(self._doubt.wait())
            try:
                await asyncio.wait({lost, doubt}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                lost.cancel()
                doubt.cancel()
            if self._renew or not await self._still_there():
                return
            await self._become(State.READY)

    async def _still_there(self) -> bool:
        """Whether a lost connection was nothing more: the server answers, and has the models it had."""
        held = set(self._holds())
        try:
            async with asyncio.timeout(_HICCUP_S):
                return (
                    await self._adapter.is_ready()
                    and bool(held)
                    and held <= set(await self._adapter.loaded())
                )
        except (TimeoutError, AdapterError):
            return False

"""A network that misbehaves, between a client and a server of a test."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_CHUNK = 65_536


class Proxy:
    """Carries connections to a port of this machine; it can slow them down, hold them, or cut them.

    Args:
        target: the port where the server listens.

    Attributes:
        delay: seconds by which whatever a client sends arrives later.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.delay = 0.0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        await self.cut()

    @property
    def url(self) -> str:
        """Where clients of a Kubernetes API connect to."""
        assert self._server is not None, "the proxy is not started"  # noqa: S101
        return f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def cut(self) -> None:
        """End all connections; what they still carried is lost."""
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def hold(self) -> None:
        """Let nothing through: connections stay, and nobody is told."""
        self._open.clear()

    def freeze(self) -> None:
        """Let nothing through on the connections there are, for ever; new ones work."""
        self._open.clear()
        self._open = asyncio.Event()
        self._open.set()

    def release(self) -> None:
        """Let through again, first what was held."""
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- for the type checker: a coroutine runs in a task
        self._connections.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._connect(reader, writer)
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gate = self._open
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            pumps = [
                asyncio.create_task(self._pump(reader, to_server, gate, upwards=True)),
                asyncio.create_task(self._pump(from_server, writer, gate, upwards=False)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            to_server.transport.abort()

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        gate: asyncio.Event,
        *,
        upwards: bool,
    ) -> None:
        while data := await source.read(_CHUNK):
            if upwards and self.delay:
                await asyncio.sleep(self.delay)
            await gate.wait()
            sink.write(data)
            await sink.drain()

"""The connection to a model server that is told what to do by gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import grpc
from grpc import aio

from adapters.errors import ServerError, ServerUnreachableError
from adapters.sdk.adapter import ServerAdapter

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from adapters.sdk.settings import Settings

T = TypeVar("T")

# Reconnect quickly after a restart: the server is on this machine. Never give up an idle connection, since
# losing it is how a dead server is noticed.
CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.client_idle_timeout_ms", 2**31 - 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
)


class GrpcServer(ServerAdapter):
    """Keeps one connection to the server's management port, and notices when it is lost."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.channel = aio.insecure_channel(f"127.0.0.1:{settings.server_port}", options=CHANNEL_OPTIONS)

    async def close(self) -> None:
        """Closes the connection."""
        await self.channel.close()

    async def wait_lost(self) -> None:
        """Follows the connection's state, which changes in the moment in which the server's process ends."""
        while (state := self.channel.get_state()) is grpc.ChannelConnectivity.READY:
            await self.channel.wait_for_state_change(state)

    async def ask(self, call: Awaitable[T]) -> T:
        """Awaits a call.

        Raises:
            ServerUnreachableError: no answer.
            ServerError: the server refuses; with its code and words.
        """
        try:
            return await call
        except aio.AioRpcError as error:
            code, details = error.code(), error.details() or "no message"
            if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                raise ServerUnreachableError(f"{self.title} gives no answer: {details}") from error
            raise ServerError(code, details) from error

    async def ask_to_load(self, call: Awaitable[T], *, what: str) -> T:
        """Awaits the call that loads `what`; as `ask`, with a message that the model's owner understands."""
        try:
            return await self.ask(call)
        except ServerError as error:
            message = f"{self.title} could not load {what} (is it whole, and of this type?): {error}"
            raise ServerError(error.status, message) from error

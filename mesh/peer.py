"""The load hop between instances: asks another one to load a model itself, and answers when asked."""

from collections.abc import Awaitable, Callable

from google.protobuf.message import Message
from grpc import StatusCode

from api.proto.mesh_peer_pb2 import LoadReply, LoadRequest
from mesh.bytes import CallError, Channel, Handler
from mesh.calls import handler
from mesh.errors import (
    DeadlineError,
    LoadFailedError,
    MeshError,
    ModelNotFoundError,
    NoCapacityError,
    RuntimeDownError,
)
from store.records import Resources

SERVICE = "modelmesh.internal.Peer"
LOAD = f"{SERVICE}/Load"
CAUSE_KEY = "mm-cause"
"""Trailing metadata: the status code that the model server gave, where the model could not be loaded."""

LoadHere = Callable[[str, int, bool, int | None], Awaitable[Resources]]
"""(model id, last used in ms since 1970, urgent, milliseconds that the request has left) -> its size."""


def peer_handlers(load_here: LoadHere) -> dict[str, Handler]:
    """What this instance answers to others: it loads what they have placed here."""

    async def load(request: LoadRequest) -> LoadReply:
        patience = request.patience_ms if request.HasField("patience_ms") else None
        try:
            size = await load_here(request.model_id, request.last_used_ms, request.urgent, patience)
        except LoadFailedError as error:
            error.metadata = ((CAUSE_KEY, error.cause.name),)
            raise
        return LoadReply(size_bytes=size.memory)

    return {LOAD: handler(LoadRequest, load)}


class Peers:
    """The connections to other instances, opened when needed. `connect` makes a channel to host:port."""

    def __init__(self, connect: Callable[[str], Channel]) -> None:
        self._connect = connect
        self._channels: dict[str, Channel] = {}

    async def load(
        self, address: str, model_id: str, *, last_used: int, urgent: bool, patience_ms: int | None
    ) -> None:
        """Has the instance at `address` load a model; returns when it is loaded.

        `patience_ms` is the time that the request has left: a load that would not begin within it is refused.

        Raises what the load there raised; RuntimeDownError also where the instance does not answer.
        """
        request = LoadRequest(
            model_id=model_id, last_used_ms=last_used, urgent=urgent, patience_ms=patience_ms
        )
        try:
            await self._channel(address).call(LOAD, request.SerializeToString())
        except CallError as error:
            raise _translate(error, address, model_id) from error

    async def ask(self, address: str, method: str, request: Message) -> bytes:
        """Calls another method of the instance at `address`; returns its encoded answer. Raises MeshError."""
        try:
            reply = await self._channel(address).call(f"{SERVICE}/{method}", request.SerializeToString())
        except CallError as error:
            raise RuntimeDownError(f"instance at {address}: {error}") from error
        return reply.message

    def _channel(self, address: str) -> Channel:
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = self._connect(address)
        return channel

    def forget(self, address: str) -> None:
        """Gives up the connection to an instance that is gone, and what it was asked for."""
        if channel := self._channels.pop(address, None):
            channel.close("the instance has gone")

    def close(self) -> None:
        """Gives up all connections."""
        for address in list(self._channels):
            self.forget(address)


def _translate(error: CallError, address: str, model_id: str) -> MeshError:
    if cause := error.metadata(CAUSE_KEY):
        return LoadFailedError.recorded(error.details, cause)
    if error.code is StatusCode.RESOURCE_EXHAUSTED:
        refused = NoCapacityError(error.details)
        refused.retry_after_ms = error.retry_after_ms
        return refused
    if error.code is StatusCode.NOT_FOUND:
        return ModelNotFoundError(model_id)
    if error.code is StatusCode.DEADLINE_EXCEEDED:
        return DeadlineError(error.details)
    return RuntimeDownError(f"instance at {address}: {error}")

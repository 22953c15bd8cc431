"""Unary calls that the policy answers and makes; the byte path carries them.

The dataplane queues what it has for the policy, and its descriptor becomes readable. `Inbox` takes all of it
at once in the event loop: misses go to the node, calls to their handlers, replies to those who wait for them.
No other thread ever needs the interpreter.
"""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, TypeVar

import structlog
from google.protobuf.message import DecodeError, Message
from grpc import StatusCode
from modelmesh_dataplane import Call, Dataplane, Gone, Miss, Reply
from modelmesh_dataplane import Channel as NativeChannel

from mesh.bytes import CallError, Channel, Handler, Metadata, OnMiss
from mesh.bytes import Reply as Answer
from mesh.errors import InvalidRequestError, MeshError

MAX_INFLATED_BYTES = 4 << 20
"""Largest answer that came compressed: gRPC's usual limit of messages."""
CODES = {code.value[0]: code for code in StatusCode}
Request = TypeVar("Request", bound=Message)

log = structlog.get_logger(__name__)


def handler(request: type[Request], work: Callable[[Request], Awaitable[Message]]) -> Handler:
    """A handler for encoded messages, of one for messages of this type."""

    async def handle(message: bytes) -> bytes:
        try:
            decoded = request.FromString(message)
        except DecodeError as error:
            raise InvalidRequestError(f"the request message is malformed: {error}") from None
        return (await work(decoded)).SerializeToString()

    return handle


class Inbox:
    """Takes what the dataplane has for the policy, from `open` to `close`, in the running event loop."""

    def __init__(self, dataplane: Dataplane) -> None:
        self._dataplane = dataplane
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_miss: OnMiss = lambda _: None
        self._handlers: Mapping[str, Handler] = {}
        self._answers: dict[int, asyncio.Task[None]] = {}
        self._waiting: dict[int, asyncio.Future[Reply]] = {}

    def open(self, on_miss: OnMiss, handlers: Mapping[str, Handler]) -> None:
        """Begins: handlers are found by `<package>.<Service>/<Method>`."""
        self._on_miss = on_miss
        self._handlers = handlers
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._dataplane.fileno(), self._take)

    def close(self) -> None:
        """Ends, once the dataplane has stopped: gives up the calls that have not ended with it."""
        if self._loop is None:
            return
        self._loop.remove_reader(self._dataplane.fileno())
        self._take()
        self._loop = None
        for task in self._answers.values():
            task.cancel()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(_closed())

    def channel(self, target: str, *, pings: bool = False) -> Channel:
        """A server at "unix:<path>" or "tcp:<host>:<port>"; with `pings` a frozen one is noticed."""
        return _Channel(self, self._dataplane.channel(target, pings))

    def expect(self, number: int) -> "asyncio.Future[Reply]":
        """The reply to a call that has just been sent; whoever awaits it forgets it in the end."""
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        if self._loop is None:
            waiting.set_exception(_closed())
        return waiting

    def forget(self, number: int) -> None:
        """Nobody waits for this reply any more."""
        del self._waiting[number]

    def _take(self) -> None:
        for event in self._dataplane.take():
            if isinstance(event, Reply):
                waiting = self._waiting.get(event.number)
                if waiting and not waiting.done():
                    waiting.set_result(event)
            elif isinstance(event, Miss):
                self._on_miss(event)
            elif isinstance(event, Call):
                self._answer_soon(event)
            elif isinstance(event, Gone) and (task := self._answers.get(event.number)):
                task.cancel()

    def _answer_soon(self, call: Call) -> None:
        task = asyncio.create_task(self._answer(call))
        self._answers[call.number] = task
        task.add_done_callback(lambda _: self._answers.pop(call.number))

    async def _answer(self, call: Call) -> None:
        handle = self._handlers.get(call.method)
        if handle is None:
            call.fail(StatusCode.UNIMPLEMENTED.value[0], f"there is no method {call.method}")
            return
        try:
            call.reply(await handle(call.message))
        except MeshError as error:
            call.fail(error.code.value[0], str(error), error.retry_after_ms, error.metadata)
        except Exception as error:
            log.exception("call not answered", method=call.method)
            call.fail(MeshError.code.value[0], f"the mesh failed: {type(error).__name__}: {error}")


class _Channel:
    def __init__(self, inbox: Inbox, native: NativeChannel) -> None:
        self._inbox = inbox
        self._native = native
        self._waiting: set[asyncio.Future[Reply]] = set()

    async def call(
        self, method: str, message: bytes, *, timeout_seconds: float | None = None, metadata: Metadata = ()
    ) -> Answer:
        timeout_ms = None if timeout_seconds is None else round(timeout_seconds * 1000)
        sent = self._native.send(method, message, timeout_ms, metadata)
        waiting = self._inbox.expect(sent.number)
        self._waiting.add(waiting)
        try:
            reply = await waiting
        except BaseException:
            sent.cancel()
            raise
        finally:
            self._inbox.forget(sent.number)
            self._waiting.discard(waiting)
        if reply.code:
            raise CallError(CODES[reply.code], reply.details, reply)
        return _Inflated(reply, _inflated(reply)) if reply.compressed else reply

    def close(self, why: str) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(CallError(StatusCode.UNAVAILABLE, why))


class _Inflated(NamedTuple):
    """A reply that came compressed."""

    reply: Reply
    message: bytes

    @property
    def retry_after_ms(self) -> int | None:
        return self.reply.retry_after_ms

    def metadata(self, name: str) -> str | None:
        return self.reply.metadata(name)


def _inflated(reply: Reply) -> bytes:
    """The message of a server that compresses unasked, as those of gRPC for Python and C++ can be told to."""
    encoding = reply.metadata("grpc-encoding")
    if encoding not in {"gzip", "deflate"}:
        raise CallError(StatusCode.INTERNAL, f"the server's answer is compressed, unasked, as {encoding}")
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # which takes either
    try:
        message = inflater.decompress(reply.message, MAX_INFLATED_BYTES)
    except zlib.error as error:
        raise CallError(StatusCode.INTERNAL, f"the server's answer is no {encoding}: {error}") from None
    if not inflater.eof:
        text = f"the server's {encoding} answer has no end, or is larger than {MAX_INFLATED_BYTES} bytes"
        raise CallError(StatusCode.INTERNAL, text)
    return message


def _closed() -> CallError:
    return CallError(StatusCode.UNAVAILABLE, "this instance is shutting down")

"""The store on etcd v3, over grpc.aio and stubs of etcd's own API.

Several endpoints are tried in turn: the one that answered last is asked first, and an unavailable one makes
every call and watch move on.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import grpc
import structlog
from grpc import StatusCode
from grpc.aio import AioRpcError, Channel

from store.base import (
    MAX_TXN_OPERATIONS,
    Compare,
    Delete,
    Event,
    Events,
    KeyValue,
    Put,
    Snapshot,
    Txn,
    TxnResult,
)
from store.errors import HistoryLostError, LeaseLostError, StoreAuthError, StoreError, StoreUnavailableError
from store.proto import etcd_kv_pb2, etcd_rpc_pb2, etcd_rpc_pb2_grpc

RANGE_ATTEMPTS = 5
PAGE_KEYS = 2_000
"""Keys read at a time; some 1 MB of model records."""
CALL_TIMEOUT_SECONDS = 5.0
ATTEMPT_SECONDS = 1.5
"""Of the time for a call, given to one endpoint where there are others: it may hang rather than refuse."""
RETRY_SECONDS = (0.05, 2.0)
"""First and longest pause before an unavailable store is tried again."""
TOKEN_KEY = "token"  # noqa: S105 - the name of a header
HAS_LEADER = ("hasleader", "true")
"""Has a member that lost the cluster's leader end a watch, which would be silent else."""
CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 10_000),  # etcd refuses clients that ping more often than every 5 s
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),  # a watch may be silent for long, and still must notice
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_http_proxy", 0),
)
RETRY_CODES = frozenset({StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED})
AUTH_CODES = frozenset({StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED})
TOKEN_IS_OLD = "revision of auth store is old"  # noqa: S105 - what etcd says
AUTH_TEXTS = (
    TOKEN_IS_OLD,
    "invalid auth token",
    "permission denied",
    "authentication failed",
    "user name is empty",
)
"""etcd's words for what is wrong with the user, for answers that carry no code."""
AWAY_CODES = frozenset(
    {
        StatusCode.UNAVAILABLE,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.CANCELLED,
        # grpc's own words for a write into a stream that has just broken.
        StatusCode.INTERNAL,
        StatusCode.UNKNOWN,
    }
)

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Tls(NamedTuple):
    """PEM of a TLS connection; without a root the system's roots are trusted."""

    root: bytes | None = None
    key: bytes | None = None
    certificate: bytes | None = None


class EtcdStore:
    """A Store on an etcd cluster. `root_prefix` comes before every key."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        root_prefix: str = "",
        user: str = "",
        password: str = "",
        tls: Tls | None = None,
        authority: str = "",
    ) -> None:
        self._endpoints = tuple(endpoints)
        self._root = root_prefix
        self._user = user
        self._password = password
        self._tls = tls
        self._authority = authority
        self._attempt_seconds = CALL_TIMEOUT_SECONDS if len(self._endpoints) == 1 else ATTEMPT_SECONDS
        self._current = 0
        self._channels: dict[int, Channel] = {}
        self._token: str | None = None

    async def get(self, key: str) -> KeyValue | None:
        """Reads one key, linearizable."""
        request = etcd_rpc_pb2.RangeRequest(key=self._key(key))
        response = await self._call(lambda kv, options: kv.Range(request, **options))
        return self._key_value(response.kvs[0]) if response.kvs else None

    async def range(self, prefix: str, *, keys_only: bool = False) -> Snapshot:
        """Reads a whole prefix in pages, all at the revision of the first.

        Begins again where that revision is compacted meanwhile.
        """
        for _ in range(RANGE_ATTEMPTS):
            try:
                return await self._range(prefix, keys_only=keys_only)
            except HistoryLostError as error:
                log.info("range compacted while it was read", prefix=prefix, error=str(error))
        raise StoreUnavailableError(f"range {prefix} was compacted {RANGE_ATTEMPTS} times while it was read")

    async def _range(self, prefix: str, *, keys_only: bool) -> Snapshot:
        start = self._key(prefix)
        request = etcd_rpc_pb2.RangeRequest(
            key=start, range_end=_prefix_end(start), limit=PAGE_KEYS, keys_only=keys_only
        )
        items: list[KeyValue] = []
        while True:
            response = await self._call(lambda kv, options: kv.Range(request, **options))
            items.extend(self._key_value(kv) for kv in response.kvs)
            request.revision = request.revision or response.header.revision
            if not response.more:
                return Snapshot(items, request.revision)
            request.key = response.kvs[-1].key + b"\0"

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Put | Delete]) -> TxnResult:
        """Applies all operations where every comparison holds; else returns what the compared keys hold."""
        if len(operations) > MAX_TXN_OPERATIONS:
            raise StoreError(
                f"a transaction of {len(operations)} operations: at most {MAX_TXN_OPERATIONS} are possible"
            )
        request = etcd_rpc_pb2.TxnRequest()
        self._fill(request, compares, operations)
        response = await self._call(lambda kv, options: kv.Txn(request, **options))
        return self._txn_result(compares, response, response.header.revision)

    async def txn_each(self, txns: Sequence[Txn]) -> list[TxnResult]:
        """Applies transactions that have nothing to do with each other, nested in one."""
        if len(txns) == 1:
            return [await self.txn(*txns[0])]
        request = etcd_rpc_pb2.TxnRequest()
        for txn in txns:
            self._fill(request.success.add().request_txn, *txn)
        response = await self._call(lambda kv, options: kv.Txn(request, **options))
        return [
            self._txn_result(txn.compares, answer.response_txn, response.header.revision)
            for txn, answer in zip(txns, response.responses, strict=True)
        ]

    async def watch(self, prefix: str, *, revision: int) -> AsyncIterator[Events]:
        """Yields every change of the prefix after the revision; reconnects by itself."""
        pause = RETRY_SECONDS[0]
        while True:
            endpoint = self._current
            try:
                async for events in self._watch_once(prefix, revision):
                    pause = RETRY_SECONDS[0]
                    revision = max(revision, events.revision)
                    yield events
            except AioRpcError as error:
                if error.code() is StatusCode.OUT_OF_RANGE:
                    raise HistoryLostError(f"watch of {prefix}: {error.details()}") from error
                if error.code() in AUTH_CODES or _token_is_old(error):
                    self._token = None
                elif error.code() not in AWAY_CODES:
                    raise _translate(error, f"watch of {prefix}") from error
                self._note_interruption(prefix, endpoint, error.details())
            except StoreAuthError as error:
                self._token = None
                self._note_interruption(prefix, endpoint, str(error))
            self._move_on(endpoint)
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_SECONDS[1])

    async def grant(self, ttl_seconds: int) -> int:
        """Creates a lease."""
        request = etcd_rpc_pb2.LeaseGrantRequest(TTL=ttl_seconds)
        response = await self._call(
            lambda lease, options: lease.LeaseGrant(request, **options), etcd_rpc_pb2_grpc.LeaseStub
        )
        return int(response.ID)

    async def keep_alive(self, lease: int) -> None:
        """Extends a lease."""

        async def beat(stub: Any, options: dict[str, Any]) -> etcd_rpc_pb2.LeaseKeepAliveResponse:
            stream = stub.LeaseKeepAlive(**options)
            try:
                await stream.write(etcd_rpc_pb2.LeaseKeepAliveRequest(ID=lease))
                answer = await stream.read()
                if answer is grpc.aio.EOF:
                    raise StoreUnavailableError("the lease stream ended without an answer")
                return answer  # type: ignore[no-any-return]
            finally:
                stream.cancel()

        response = await self._call(beat, etcd_rpc_pb2_grpc.LeaseStub)
        if response.TTL <= 0:
            raise LeaseLostError(f"lease {lease:x} is gone")

    async def revoke(self, lease: int) -> None:
        """Ends a lease and its keys."""
        request = etcd_rpc_pb2.LeaseRevokeRequest(ID=lease)
        try:
            await self._call(
                lambda stub, options: stub.LeaseRevoke(request, **options), etcd_rpc_pb2_grpc.LeaseStub
            )
        except LeaseLostError:
            return

    async def close(self) -> None:
        """Closes every channel; running watches end with StoreUnavailableError or cancellation."""
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            await channel.close()

    async def _watch_once(self, prefix: str, revision: int) -> AsyncIterator[Events]:
        start = self._key(prefix)
        metadata = (*await self._metadata(), HAS_LEADER)
        stream = etcd_rpc_pb2_grpc.WatchStub(self._channel()).Watch(metadata=metadata)
        try:
            await stream.write(
                etcd_rpc_pb2.WatchRequest(
                    create_request=etcd_rpc_pb2.WatchCreateRequest(
                        key=start,
                        range_end=_prefix_end(start),
                        start_revision=revision + 1,
                        progress_notify=True,
                    )
                )
            )
            async for response in stream:
                if response.compact_revision or (response.created and response.header.revision < revision):
                    raise HistoryLostError(
                        f"watch of {prefix}: revision {revision} is not in the store any more "
                        f"(compacted at {response.compact_revision}, now at {response.header.revision})"
                    )
                if response.canceled:
                    kind = StoreAuthError if _is_about_auth(response.cancel_reason) else StoreError
                    raise kind(f"watch of {prefix} was refused: {response.cancel_reason}")
                if response.events:
                    # What comes late comes in parts, of which every header names the store's latest revision.
                    events = [self._event(event) for event in response.events]
                    yield Events(events, events[-1].mod_revision)
                elif not response.created:
                    yield Events([], response.header.revision)
        finally:
            stream.cancel()

    async def _call(
        self,
        method: Callable[[Any, dict[str, Any]], Awaitable[T]],
        stub: Callable[[Channel], Any] = etcd_rpc_pb2_grpc.KVStub,
    ) -> T:
        deadline = time.monotonic() + CALL_TIMEOUT_SECONDS
        pause = RETRY_SECONDS[0]
        fresh_token = False
        while True:
            endpoint = self._current
            left = deadline - time.monotonic()
            try:
                timeout = max(min(left, self._attempt_seconds), 0.001)
                options = {"timeout": timeout, "metadata": await self._metadata()}
                return await method(stub(self._channel()), options)
            except AioRpcError as error:
                if _token_is_old(error) and self._user and not fresh_token:
                    fresh_token, self._token = True, None
                    continue
                away = error.code() in RETRY_CODES
                if away:
                    self._move_on(endpoint)
                if not away or deadline - time.monotonic() <= pause:
                    raise _translate(error, self._endpoints[endpoint]) from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_SECONDS[1])

    async def _metadata(self) -> tuple[tuple[str, str], ...]:
        if not self._user:
            return ()
        if self._token is None:
            stub = etcd_rpc_pb2_grpc.AuthStub(self._channel())
            request = etcd_rpc_pb2.AuthenticateRequest(name=self._user, password=self._password)
            self._token = (await stub.Authenticate(request, timeout=self._attempt_seconds)).token
        return ((TOKEN_KEY, self._token),)

    def _channel(self) -> Channel:
        channel = self._channels.get(self._current)
        if channel is None:
            channel = self._channels[self._current] = self._open(self._endpoints[self._current])
        return channel

    def _open(self, endpoint: str) -> Channel:
        options = list(CHANNEL_OPTIONS)
        if self._authority:
            options.append(("grpc.default_authority", self._authority))
        if self._tls is None:
            return grpc.aio.insecure_channel(endpoint, options=options)
        if self._authority:
            options.append(("grpc.ssl_target_name_override", self._authority))
        credentials = grpc.ssl_channel_credentials(self._tls.root, self._tls.key, self._tls.certificate)
        return grpc.aio.secure_channel(endpoint, credentials, options=options)

    def _note_interruption(self, prefix: str, endpoint: int, error: str | None) -> None:
        log.warning("store watch interrupted", prefix=prefix, endpoint=self._endpoints[endpoint], error=error)

    def _move_on(self, failed: int) -> None:
        if self._current == failed:
            self._current = (failed + 1) % len(self._endpoints)

    def _fill(
        self,
        request: etcd_rpc_pb2.TxnRequest,
        compares: Sequence[Compare],
        operations: Sequence[Put | Delete],
    ) -> None:
        """Writes a transaction in place: messages that are made first and put together later are copied."""
        for compare in compares:
            key = self._key(compare.key)
            wanted = request.compare.add()
            wanted.key = key
            wanted.target = etcd_rpc_pb2.Compare.MOD
            wanted.mod_revision = compare.mod_revision  # EQUAL is the default
            request.failure.add().request_range.key = key
        for operation in operations:
            done = request.success.add()
            if isinstance(operation, Delete):
                done.request_delete_range.key = self._key(operation.key)
                continue
            put = done.request_put
            put.key, put.value, put.lease = self._key(operation.key), operation.value, operation.lease

    def _txn_result(
        self, compares: Sequence[Compare], response: etcd_rpc_pb2.TxnResponse, revision: int
    ) -> TxnResult:
        current: dict[str, KeyValue | None] = {}
        if not response.succeeded:
            for compare, answer in zip(compares, response.responses, strict=True):
                kvs = answer.response_range.kvs
                current[compare.key] = self._key_value(kvs[0]) if kvs else None
        return TxnResult(response.succeeded, revision, current)

    def _key(self, key: str) -> bytes:
        return (self._root + key).encode()

    def _key_value(self, kv: etcd_kv_pb2.KeyValue) -> KeyValue:
        return KeyValue(self._text(kv.key), kv.value, kv.mod_revision, kv.create_revision, kv.lease)

    def _event(self, event: etcd_kv_pb2.Event) -> Event:
        kv = event.kv
        if event.type == etcd_kv_pb2.Event.DELETE:
            return Event(self._text(kv.key), None, kv.mod_revision)
        return Event(self._text(kv.key), kv.value, kv.mod_revision, kv.create_revision)

    def _text(self, key: bytes) -> str:
        return key.decode(errors="replace")[len(self._root) :]


def _prefix_end(prefix: bytes) -> bytes:
    """The first key after all keys with this prefix."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else b"\0"


def _token_is_old(error: AioRpcError) -> bool:
    return error.code() is StatusCode.UNAUTHENTICATED or TOKEN_IS_OLD in (error.details() or "")


def _is_about_auth(reason: str) -> bool:
    return any(text in reason for text in AUTH_TEXTS)


def _translate(error: AioRpcError, where: str) -> StoreError:
    code, details = error.code(), error.details() or ""
    text = f"etcd at {where}: {code.name}: {details}"
    if code is StatusCode.OUT_OF_RANGE:
        return HistoryLostError(text)
    if code is StatusCode.NOT_FOUND and "lease" in details:
        return LeaseLostError(text)
    if code in AUTH_CODES or _is_about_auth(details):
        return StoreAuthError(text)
    if code in AWAY_CODES:
        return StoreUnavailableError(text)
    return StoreError(text)

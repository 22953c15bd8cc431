from collections.abc import Mapping, Sequence
from typing import final

__all__ = ["Call", "Channel", "CopyRoute", "Dataplane", "Gone", "Miss", "Reply", "Sent"]

@final
class CopyRoute:
    """One copy of a model, for the routing table.

    `address` is None for the copy of this instance's own model server, else "host:port" of the peer port of
    the instance that holds it. A copy that is not `loaded` takes no requests: while there is no other, a
    request is a `Miss`, and the policy says when the copy can serve.
    """

    def __new__(cls, instance_id: str, address: str | None, loaded: bool = True) -> CopyRoute: ...
    @property
    def instance_id(self) -> str: ...
    @property
    def address(self) -> str | None: ...
    @property
    def loaded(self) -> bool: ...

@final
class Miss:
    """Requests for one model that found no usable copy, and wait.

    It is answered once, by `serve` or `fail`, from any thread; further answers have no effect. One that is
    dropped unanswered fails its requests with INTERNAL.
    """

    @property
    def name(self) -> str:
        """What the client called the model."""
    @property
    def is_alias(self) -> bool:
        """`name` is an alias (a vmodel id)."""
    @property
    def model_id(self) -> str:
        """The concrete model id; empty where the alias is not in the table."""
    @property
    def method(self) -> str:
        """`<package>.<Service>/<Method>` of the first of the requests."""
    @property
    def excluded(self) -> list[str]:
        """Instances whose copies failed for these requests since the policy last answered `serve`.

        They are tried again after the next `serve`.
        """
    @property
    def failure(self) -> str | None:
        """Why this instance's own copy failed, where it did.

        "not_found": the model server does not know the model; "unavailable": it does not answer. Where
        another copy serves the request meanwhile, the miss is for information, and no request waits for it.
        """
    @property
    def deadline_ms(self) -> int | None:
        """Milliseconds until the last of the waiting requests gives up; None: one waits for ever.

        Grows as requests join. Each request also ends at its own deadline.
        """
    @property
    def since_tried_ms(self) -> int | None:
        """Milliseconds since the last of the requests was sent to this instance's own copy, which failed it.

        A copy that was loaded later is not the one that failed. None where `failure` is.
        """
    def serve(self) -> None:
        """Wakes the requests: a route is in the table now, look again."""
    def fail(self, code: int, message: str, retry_after_ms: int | None = None) -> None:
        """Fails the requests with a gRPC status code and a text for the user.

        `retry_after_ms` tells clients when to try again (`grpc-retry-pushback-ms`, REST: `Retry-After`).
        FAILED_PRECONDITION stands for a model that cannot be loaded: REST answers 500.
        """

@final
class Call:
    """A unary call of a client or a peer that the policy itself answers.

    It is answered once, by `reply` or `fail`; further answers have no effect, nor has one after the client
    has gone (`Gone`). A call that is dropped unanswered fails with INTERNAL.
    """

    @property
    def number(self) -> int:
        """Different for each call."""
    @property
    def method(self) -> str:
        """`<package>.<Service>/<Method>`."""
    @property
    def message(self) -> bytes:
        """The encoded request."""
    @property
    def deadline_ms(self) -> int | None:
        """Milliseconds until the client gives up; None: it waits for ever."""
    def reply(self, message: bytes) -> None:
        """Answers with an encoded message."""
    def fail(
        self,
        code: int,
        message: str,
        retry_after_ms: int | None = None,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Answers with a gRPC status code and a text for the user, and metadata for programs.

        `retry_after_ms` tells clients when to try again (`grpc-retry-pushback-ms`).
        """

@final
class Gone:
    """The client of a call has gone, or its deadline has passed: work on it is in vain."""

    @property
    def number(self) -> int:
        """`Call.number`."""

@final
class Reply:
    """How a call of the policy ended."""

    @property
    def number(self) -> int:
        """`Sent.number`."""
    @property
    def code(self) -> int:
        """The gRPC status code; 0 is OK. UNAVAILABLE also where no server could be reached."""
    @property
    def details(self) -> str:
        """The text of the status."""
    @property
    def retry_after_ms(self) -> int | None:
        """When to try again, where the server says so (`grpc-retry-pushback-ms`)."""
    @property
    def message(self) -> bytes:
        """The encoded answer; empty unless the code is OK."""
    @property
    def compressed(self) -> bool:
        """Whether the answer is compressed, as its metadata `grpc-encoding` says."""
    def metadata(self, name: str) -> str | None:
        """A value that the server sent before or after its message; `name` is in lower case."""

@final
class Sent:
    """A call of the policy that is under way. Its `Reply` comes in any case."""

    @property
    def number(self) -> int:
        """Different for each call."""
    def cancel(self) -> None:
        """Gives the call up; the server is told."""

@final
class Channel:
    """A server that the policy calls, connected on first use and again after a failure.

    Calls share one connection, which is not the one that requests go by.
    """

    def send(
        self,
        method: str,
        message: bytes,
        timeout_ms: int | None = None,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> Sent:
        """Calls `<package>.<Service>/<Method>` with an encoded message; the reply comes by `Dataplane.take`.

        Without a timeout it waits for ever. Where the dataplane does not run, the reply is UNAVAILABLE.
        """

@final
class Dataplane:
    """The byte path of one mesh instance. Calls are cheap and do not block, unless they say so."""

    def __new__(
        cls,
        *,
        instance_id: str,
        runtime_target: str | None,
        grpc_listen: Sequence[str],
        rest_listen: Sequence[str] = (),
        peer_listen: str | None = None,
        shared_listen_grpc: Sequence[str] = (),
        shared_listen_rest: Sequence[str] = (),
        max_message_bytes: int = 16777216,
        max_header_bytes: int = 8192,
        worker_threads: int = 2,
        multi_parallelism: int = 4,
        max_connection_age_s: int | None = None,
        connection_age_grace_s: int | None = None,
        max_in_flight: int = 10000,
        max_in_flight_per_model: int = 5000,
        max_buffered_bytes: int = 134217728,
    ) -> Dataplane:
        """Describes a byte path; `start` opens its ports.

        Targets are "unix:<path>" or "tcp:<host>:<port>"; listen addresses "<host>:<port>", port 0 for any.
        `runtime_target` is the model server, None for an instance that only routes. The shared addresses are
        opened with SO_REUSEPORT, and only while the instance is ready. A connection of a gRPC client is
        closed when it is `max_connection_age_s` old, and what is under way on it after the grace. More than
        `max_in_flight` requests of clients at a time are refused, and more than `max_in_flight_per_model`
        that are on this instance's copy of one model, or wait for one; so are those whose bodies, with those
        that are held already, take more than `max_buffered_bytes` (but two of the largest messages always
        have room).
        """
    def start(self) -> None:
        """Opens the ports and serves.

        Raises:
            OSError: a port cannot be opened; the text names the address.
        """
    def fileno(self) -> int:
        """A descriptor that is readable while there is something to `take`, for an event loop."""
    def take(self) -> list[Miss | Call | Gone | Reply]:
        """Takes everything that there is for the policy, in the order in which it came. Does not block."""
    def channel(self, target: str, pings: bool = False) -> Channel:
        """A server for the policy to call: "unix:<path>" or "tcp:<host>:<port>".

        With `pings` a server that is frozen is noticed within seconds; servers other than the mesh may
        refuse them.
        """
    def addresses(self) -> list[tuple[str, str]]:
        """The open ports as ("grpc" | "rest" | "peer", "host:port")."""
    def set_rpcs(self, rpcs: Mapping[str, tuple[Sequence[int], bool]], allow_other: bool) -> None:
        """Sets what clients may call: method -> (path of the id in the message, the id is an alias).

        Without a path, and for other methods where allowed, the id is in the headers. Initially every method
        is allowed.
        """
    def set_methods(self, methods: Mapping[str, Sequence[int]], allow_any: bool) -> None:
        """Sets what the model server offers: method -> where it wants the concrete id in the message.

        With an empty mapping, or `allow_any`, every other method is passed on as it is.
        """
    def update(
        self,
        generation: int,
        models: Mapping[str, Sequence[CopyRoute] | None],
        aliases: Mapping[str, Sequence[tuple[str, int]] | None],
    ) -> bool:
        """Changes the routing table: model id -> all its copies, alias -> (model id, weight) pairs.

        None removes. Returns False, and changes nothing, if a batch of a later generation has been applied.
        """
    def usage(self) -> list[tuple[str, int, int]]:
        """The use of local copies since the last call: (model id, requests, last use in ms since 1970).

        Requests of peers count here, requests sent to peers do not.
        """
    def in_flight(self, model_id: str) -> int:
        """Requests now on the local copy.

        After an `update` that removed the copy no new one begins, so 0 means that it can be unloaded.
        """
    def limit(self, model_id: str, concurrent: int, queued: int) -> None:
        """Lets the own copy of a model have so many requests at a time, and so many more wait for their turn.

        Beyond that they are tried elsewhere, or refused as RESOURCE_EXHAUSTED. 0 concurrent ones: no limit.
        It may be set before the copy is in the table, and stays until it is taken back.
        """
    def set_ready(self, ready: bool) -> None:
        """Says whether this instance takes requests: health answers, and the shared ports open or close.

        Raises:
            OSError: a shared port cannot be opened; the text names the address.
        """
    def metrics(self) -> str:
        """All measurements in the Prometheus text format."""
    def stop(self, grace_ms: int) -> None:
        """Closes the ports and ends when no request is left, at the latest after `grace_ms`. Blocks."""

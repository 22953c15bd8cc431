"""What the policy needs of the byte path, so that it can be tested without one."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from grpc import StatusCode

Metadata = Sequence[tuple[str, str]]


class Route(NamedTuple):
    """One copy of a model."""

    instance_id: str
    address: str | None
    """host:port of the peer; None for the copy of this instance."""
    loaded: bool = True


class Miss(Protocol):
    """Requests that found no usable copy and wait; answered once, by `serve` or `fail`."""

    @property
    def name(self) -> str:
        """What the client called the model."""

    @property
    def is_alias(self) -> bool:
        """Whether the name is a vmodel id."""

    @property
    def model_id(self) -> str:
        """Empty where the alias is unknown."""

    @property
    def excluded(self) -> list[str]:
        """Instances that failed these requests."""

    @property
    def failure(self) -> str | None:
        """Why the own copy failed: "not_found", "unavailable" or, where it did not, None."""

    @property
    def deadline_ms(self) -> int | None:
        """Milliseconds left."""

    @property
    def since_tried_ms(self) -> int | None:
        """Milliseconds since the own copy that failed was last asked."""

    def serve(self) -> None:
        """There is a route now."""

    def fail(self, code: int, message: str, retry_after_ms: int | None = None) -> None:
        """There will be none."""


OnMiss = Callable[[Miss], None]
Handler = Callable[[bytes], Awaitable[bytes]]
"""From an encoded request to the encoded answer. Raises MeshError; cancelled when the client has gone."""


class Reply(Protocol):
    """The answer to a call."""

    @property
    def message(self) -> bytes:
        """The encoded message."""

    @property
    def retry_after_ms(self) -> int | None:
        """When to try again, where the server says so."""

    def metadata(self, name: str) -> str | None:
        """A value that the server sent along."""


class CallError(Exception):
    """A call that failed."""

    def __init__(self, code: StatusCode, details: str, reply: Reply | None = None) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code
        self.details = details
        self.retry_after_ms = reply.retry_after_ms if reply else None
        self._reply = reply

    def metadata(self, name: str) -> str | None:
        """A value that the server sent along."""
        return self._reply.metadata(name) if self._reply else None


class Channel(Protocol):
    """A server that can be called; connected when needed, and again at the next call after a failure."""

    async def call(
        self, method: str, message: bytes, *, timeout_seconds: float | None = None, metadata: Metadata = ()
    ) -> Reply:
        """Sends an encoded request and returns the answer.

        Cancelling it cancels the server's work. Raises CallError.
        """

    def close(self, why: str) -> None:
        """Fails the calls under way with UNAVAILABLE and this text. No call may follow."""


class BytePath(Protocol):
    """Moves requests along the routes it is told, asks for those it lacks, and carries the policy's calls."""

    def start(self, on_miss: OnMiss, handlers: Mapping[str, Handler]) -> None:
        """Opens the ports; calls go to handlers by `<package>.<Service>/<Method>`.

        Raises OSError naming the address.
        """

    def channel(self, target: str, *, pings: bool = False) -> Channel:
        """A server at "unix:<path>" or "tcp:<host>:<port>"; with `pings` a frozen one is noticed."""

    def set_rpcs(self, rpcs: Mapping[str, tuple[Sequence[int], bool]], allow_other: bool) -> None:  # noqa: FBT001
        """Method -> (path of the model id in its request, whether that is a vmodel id)."""

    def set_methods(self, methods: Mapping[str, Sequence[int]], allow_any: bool) -> None:  # noqa: FBT001
        """Method of the model server -> where it wants the model id."""

    def update(
        self,
        generation: int,
        models: Mapping[str, Sequence[Route] | None],
        aliases: Mapping[str, Sequence[tuple[str, int]] | None],
    ) -> None:
        """Replaces the routes of models and aliases; None removes."""

    def usage(self) -> list[tuple[str, int, int]]:
        """(model id, requests, last use in ms since 1970) since the last call."""

    def in_flight(self, model_id: str) -> int:
        """Requests now on the own copy."""

    def limit(self, model_id: str, concurrent: int, queued: int) -> None:
        """Requests at a time on the own copy, and how many more wait; 0 concurrent: any number."""

    def set_ready(self, ready: bool) -> None:  # noqa: FBT001
        """Whether clients may come."""

    def metrics(self) -> str:
        """Prometheus text."""

    async def stop(self, grace_ms: int) -> None:
        """Ends when no request is left, after this long at the latest; does nothing where it has ended."""

"""What the policy needs of the byte path, so that it can be tested without one."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol


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

    def serve(self) -> None:
        """There is a route now."""

    def fail(self, code: int, message: str, retry_after_ms: int | None = None) -> None:
        """There will be none."""


class BytePath(Protocol):
    """Moves requests along the routes it is told; asks for routes it lacks."""

    def start(self) -> None:
        """Opens the ports. Raises OSError naming the address."""

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

    def set_ready(self, ready: bool) -> None:  # noqa: FBT001
        """Whether clients may come."""

    def metrics(self) -> str:
        """Prometheus text."""

    def stop(self, grace_ms: int) -> None:
        """Ends; blocks while requests run, for at most this long."""


OnMiss = Callable[[Miss], None]
"""Called on a thread of the byte path."""

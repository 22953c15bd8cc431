# ruff: noqa: ARG002, FBT001
"""A byte path for tests: keeps the routes it is told, and lets a test play the requests.

Calls that the policy answers and makes are those of a real one.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mesh.bytes import Channel, Handler, OnMiss, Route
from mesh.native import NativeBytePath


class Failed(Exception):  # noqa: N818 - the end of a request, as its client sees it
    """A request that the policy failed."""

    def __init__(self, code: int, message: str, retry_after_ms: int | None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms


@dataclass
class FakeMiss:
    name: str
    is_alias: bool
    model_id: str
    excluded: list[str]
    failure: str | None
    deadline_ms: int | None
    outcome: "asyncio.Future[None]"
    since_tried_ms: int | None = None

    def serve(self) -> None:
        if not self.outcome.done():
            self.outcome.set_result(None)

    def fail(self, code: int, message: str, retry_after_ms: int | None = None) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(Failed(code, message, retry_after_ms))


@dataclass
class FakeBytes:
    instance_id: str
    native: NativeBytePath
    on_miss: OnMiss = field(init=False)
    models: dict[str, Sequence[Route]] = field(default_factory=dict)
    aliases: dict[str, Sequence[tuple[str, int]]] = field(default_factory=dict)
    used: dict[str, tuple[int, int]] = field(default_factory=dict)
    flying: dict[str, int] = field(default_factory=dict)
    limits: dict[str, tuple[int, int]] = field(default_factory=dict)
    ready: bool = False
    generation: int = 0
    rpcs: Mapping[str, tuple[Sequence[int], bool]] = field(default_factory=dict)
    methods: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def start(self, on_miss: OnMiss, handlers: Mapping[str, Handler]) -> None:
        self.on_miss = on_miss
        self.native.start(on_miss, handlers)

    def channel(self, target: str, *, pings: bool = False) -> Channel:
        return self.native.channel(target, pings=pings)

    def set_rpcs(self, rpcs: Mapping[str, tuple[Sequence[int], bool]], allow_other: bool) -> None:
        self.rpcs = rpcs

    def set_methods(self, methods: Mapping[str, Sequence[int]], allow_any: bool) -> None:
        self.methods = methods

    def update(
        self,
        generation: int,
        models: Mapping[str, Sequence[Route] | None],
        aliases: Mapping[str, Sequence[tuple[str, int]] | None],
    ) -> None:
        assert generation > self.generation
        self.generation = generation
        for name, routes in models.items():
            if routes:
                self.models[name] = routes
            else:
                self.models.pop(name, None)
        for name, targets in aliases.items():
            if targets:
                self.aliases[name] = targets
            else:
                self.aliases.pop(name, None)

    def usage(self) -> list[tuple[str, int, int]]:
        used, self.used = self.used, {}
        return [(model_id, count, last) for model_id, (count, last) in used.items()]

    def in_flight(self, model_id: str) -> int:
        return self.flying.get(model_id, 0)

    def limit(self, model_id: str, concurrent: int, queued: int) -> None:
        self.limits[model_id] = (concurrent, queued)

    def set_ready(self, ready: bool) -> None:
        self.ready = ready
        self.native.set_ready(ready)

    def metrics(self) -> str:
        return ""

    async def stop(self, grace_ms: int) -> None:
        await self.native.stop(grace_ms)

    async def request(
        self,
        name: str,
        *,
        alias: bool = False,
        excluded: Sequence[str] = (),
        failure: str | None = None,
        deadline_ms: int | None = 10_000,
        since_tried_ms: int | None = None,
    ) -> Route:
        """Plays one request: returns the copy that serves it, or raises Failed."""
        tried = list(excluded)
        for _ in range(8):
            model_id = self.aliases[name][0][0] if alias and name in self.aliases else "" if alias else name
            loaded = [route for route in self.models.get(model_id, ()) if route.loaded]
            usable = [route for route in loaded if route.instance_id not in tried]
            if usable:
                return next((route for route in usable if route.address is None), usable[0])
            outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.on_miss(
                FakeMiss(name, alias, model_id, tried, failure, deadline_ms, outcome, since_tried_ms)
            )
            await outcome
            tried, failure = [], None
        raise AssertionError("the policy said eight times that there is a route, and there was none")

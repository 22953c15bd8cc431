"""The real byte path, behind the interface that the policy knows."""

import asyncio
from collections.abc import Mapping, Sequence

from modelmesh_dataplane import CopyRoute, Dataplane

from mesh.bytes import Channel, Handler, OnMiss, Route
from mesh.calls import Inbox
from mesh.config import Config


class NativeBytePath:
    """The Rust dataplane of one process, with the ports of its configuration."""

    def __init__(self, config: Config) -> None:
        def listen(port: int) -> str:
            return f"{config.bind}:{port}"

        self._dataplane = Dataplane(
            instance_id=config.instance_id,
            runtime_target=config.serving_target,
            grpc_listen=[listen(config.grpc_port)] if config.grpc_port else [],
            rest_listen=[listen(config.rest_port)] if config.rest_port else [],
            peer_listen=listen(config.peer_port),
            shared_listen_grpc=config.shared_grpc,
            shared_listen_rest=config.shared_rest,
            max_message_bytes=config.max_message_bytes,
            max_header_bytes=config.max_header_bytes,
            multi_parallelism=config.multi_parallelism,
            max_connection_age_s=config.max_connection_age_s,
            connection_age_grace_s=config.connection_age_grace_s,
        )
        self._inbox = Inbox(self._dataplane)

    def start(self, on_miss: OnMiss, handlers: Mapping[str, Handler]) -> None:
        """As BytePath.start."""
        self._dataplane.start()
        self._inbox.open(on_miss, handlers)

    def channel(self, target: str, *, pings: bool = False) -> Channel:
        """As BytePath.channel."""
        return self._inbox.channel(target, pings=pings)

    def set_rpcs(self, rpcs: Mapping[str, tuple[Sequence[int], bool]], allow_other: bool) -> None:  # noqa: FBT001
        """As BytePath.set_rpcs."""
        self._dataplane.set_rpcs(rpcs, allow_other)

    def set_methods(self, methods: Mapping[str, Sequence[int]], allow_any: bool) -> None:  # noqa: FBT001
        """As BytePath.set_methods."""
        self._dataplane.set_methods(methods, allow_any)

    def update(
        self,
        generation: int,
        models: Mapping[str, Sequence[Route] | None],
        aliases: Mapping[str, Sequence[tuple[str, int]] | None],
    ) -> None:
        """As BytePath.update."""
        self._dataplane.update(
            generation,
            {
                name: [CopyRoute(*route) for route in routes] if routes else None
                for name, routes in models.items()
            },
            aliases,
        )

    def usage(self) -> list[tuple[str, int, int]]:
        """As BytePath.usage."""
        return self._dataplane.usage()

    def in_flight(self, model_id: str) -> int:
        """As BytePath.in_flight."""
        return self._dataplane.in_flight(model_id)

    def limit(self, model_id: str, concurrent: int, queued: int) -> None:
        """As BytePath.limit."""
        self._dataplane.limit(model_id, concurrent, queued)

    def set_ready(self, ready: bool) -> None:  # noqa: FBT001
        """As BytePath.set_ready."""
        self._dataplane.set_ready(ready)

    def metrics(self) -> str:
        """As BytePath.metrics."""
        return self._dataplane.metrics()

    async def stop(self, grace_ms: int) -> None:
        """As BytePath.stop."""
        await asyncio.to_thread(self._dataplane.stop, grace_ms)
        self._inbox.close()

"""The environment variables of an adapter, as the controller sets them, checked before anything starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.environment import Reader
from adapters.puller.settings import PullerSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

# The largest numbers that the SPI's messages can carry.
_UINT32, _UINT64 = 2**32 - 1, 2**64 - 1
# The mesh refuses a runtime that allows less time than this.
_SHORTEST_LOAD_MS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an adapter is told about its pod. Sizes in bytes.

    `capacity` is what models may use: the memory that the server's container requested, less a reserve for
    the server itself. `per_model_concurrency` 0 sets no limit. `metrics_port` 0 serves neither metrics nor
    health; `metrics_address` None is every interface, since probes come from outside of the pod. `root` is
    the folder shared with the model server. `environment` is all variables, for those that one adapter alone
    has.
    """

    bind_address: str
    port: int
    metrics_address: str | None
    metrics_port: int
    server_port: int
    data_endpoint: str
    capacity: int
    loading_concurrency: int
    load_timeout_ms: int
    default_model_size: int
    size_multiplier: float
    server_version: str
    per_model_concurrency: int
    root: Path
    puller: PullerSettings
    embedded_puller: bool
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_environment(
        cls,
        environment: Mapping[str, str],
        *,
        size_multiplier: float,
        server_port: int,
        data_port: int | None = None,
    ) -> Settings:
        """Reads and checks all variables; the other arguments are the defaults that differ between servers.

        Raises:
            ConfigurationError: names every variable that is wrong and what it must be.
        """
        read = Reader(environment)
        memory = read.number("CONTAINER_MEM_REQ_BYTES", 0, least=0, most=_UINT64)
        reserve = read.number("MEM_BUFFER_BYTES", 256 << 20, least=0)
        if "CONTAINER_MEM_REQ_BYTES" not in environment:
            read.problem(
                "CONTAINER_MEM_REQ_BYTES is not set: give the bytes that the server's container requests"
            )
        elif memory <= reserve:
            read.problem(
                f"CONTAINER_MEM_REQ_BYTES ({memory}) must be more than MEM_BUFFER_BYTES ({reserve}), "
                "or no memory is left for models",
            )
        runtime_port = read.port("RUNTIME_PORT", server_port)
        settings = cls(
            bind_address=environment.get("MODELMESH_BIND_ADDRESS") or "127.0.0.1",
            port=read.port("ADAPTER_PORT", 8085),
            metrics_address=environment.get("MODELMESH_BIND_ADDRESS") or None,
            metrics_port=read.port("ADAPTER_METRICS_PORT", 0, least=0),
            server_port=runtime_port,
            data_endpoint=environment.get("RUNTIME_DATA_ENDPOINT") or f"port:{data_port or runtime_port}",
            capacity=memory - reserve,
            loading_concurrency=read.number("LOADING_CONCURRENCY", 1, least=1, most=_UINT32),
            load_timeout_ms=read.number("LOADTIME_TIMEOUT", 30_000, least=_SHORTEST_LOAD_MS, most=_UINT32),
            default_model_size=read.number("DEFAULT_MODELSIZE", 1_000_000, least=1, most=_UINT64),
            size_multiplier=read.factor("MODELSIZE_MULTIPLIER", size_multiplier),
            server_version=environment.get("RUNTIME_VERSION", "v1"),
            per_model_concurrency=read.number("LIMIT_PER_MODEL_CONCURRENCY", 0, least=0, most=_UINT32),
            root=Path(environment.get("ROOT_MODEL_DIR") or "/models"),
            # With the loaded models these contents stay below the volume's limit of 1.5 times the memory.
            puller=PullerSettings.from_environment(read, cache_bytes=memory),
            embedded_puller=read.flag("USE_EMBEDDED_PULLER", default=False),
            environment=environment,
        )
        read.finish()
        return settings

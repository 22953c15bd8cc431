"""The process's settings: environment variables, with the names that the controller and users know."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mesh.copies import USUAL_TERMS
from mesh.errors import ConfigError
from mesh.failfast import USUAL_TERMS as FAIL_FAST_TERMS
from mesh.failfast import FailFastTerms
from mesh.scaling import USUAL_TERMS as SCALING_TERMS
from mesh.scaling import ScalingTerms

INSTANCE_ID_CHARACTERS = 12
"""The end of a pod's name, which tells its pods apart and is what users see as a copy's location."""
LEAST_FAILURE_EXPIRY_MS = 1_000
"""With less, a broken model that clients ask for would be loaded again and again without a pause."""
LEAST_THRESHOLD = 10
"""Requests a minute; the original's bound. With less, any use at all would be load."""
LEAST_SECOND_COPY_MS = 1_000
DEFAULT_RUNTIME_SOCKET = Path("/tmp/mmesh/grpc.sock")  # noqa: S108 - part of the contract with runtimes
DEFAULT_RUNTIME_PORT = 8085
IGNORED = (
    "ZOOKEEPER",
    "KV_READ_ONLY",
    "LL_REGISTRY",
    "HEAP_SIZE_MB",
    "MEM_LIMIT_MB",
    "MAX_DIRECT_BUFS_MB",
    "MAX_GC_PAUSE",
    "NETTY_BUFFER_CHECKS",
    "GC_DIAG",
    "CUSTOM_JVM_ARGS",
    "MM_INSTALL_PATH",
    "MM_SERVICE_CLASS",
    "MM_SEND_DEST_ID",
    "MM_METRICS_STATSD_PORT",
    "MM_METRICS_PROMETHEUS_PORT",
    "MM_LOG_PROMETHEUS_REQS",
)
"""Settings of the original that mean nothing here (StatsD, ZooKeeper, the JVM); a set one is logged."""
UNSUPPORTED = (
    "MM_LOG_EACH_INVOKE",
    "MM_LOG_REQUEST_HEADERS",
    "MM_PAYLOAD_PROCESSORS",
    "MM_CONC_SCALEUP_BANDWIDTH_PCT",
)
"""Settings of the original that have no effect yet; a set one is logged."""
METRIC_WORD = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*")
MAX_INFO_LABELS = 4
TLS = (
    "MM_TLS_PRIVATE_KEY_PATH",
    "MM_TLS_KEY_CERT_PATH",
    "MM_SVC_GRPC_PRIVATE_KEY_PATH",
    "MM_SVC_GRPC_CA_CERT_PATH",
    "TAS_SVC_GRPC_PRIVATE_KEY_PATH",
    "TAS_SVC_GRPC_CA_CERT_PATH",
)
"""Settings that ask for an encrypted port, old names included."""
KV_PREFIX = re.compile(r"[^/\s]+")


@dataclass(frozen=True, slots=True)
class Metrics:
    """Where measurements are served."""

    port: int
    https: bool


@dataclass(frozen=True, slots=True)
class InfoMetric:
    """A gauge that is always 1, for what its labels say of this instance."""

    name: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of one mesh process. Targets are `unix:<path>` or `tcp:<host>:<port>`."""

    service: str
    instance_id: str
    host: str
    """Where peers reach this instance."""
    bind: str
    kv_store: str
    kv_prefix: str
    runtime_target: str
    """The SPI."""
    serving_target: str
    """The model server's inference port."""
    grpc_port: int
    rest_port: int
    peer_port: int
    probe_port: int
    prestop_port: int
    metrics: Metrics | None
    shared_grpc: tuple[str, ...]
    shared_rest: tuple[str, ...]
    max_message_bytes: int
    max_header_bytes: int
    labels: tuple[str, ...]
    location: str
    zone: str
    version: str
    type_constraints: str
    type_constraints_path: Path | None
    dataplane_config: str
    dataplane_config_path: Path | None
    default_owner: str
    failure_expiry_ms: int
    shutdown_seconds: float
    scaling: ScalingTerms = SCALING_TERMS
    fail_fast: FailFastTerms = FAIL_FAST_TERMS
    multi_parallelism: int = 4
    """How many models of one request are asked at the same time."""
    max_connection_age_s: int | None = None
    connection_age_grace_s: int | None = None
    max_in_flight_per_copy: int = 0
    """Requests on a copy where the server limits them; 0: as usual, below 0: any number."""
    info_metric: InfoMetric | None = None
    static_models: str = ""
    static_models_path: Path | None = None
    ignored: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()

    @property
    def peer_address(self) -> str:
        """What peers connect to."""
        return f"{self.host}:{self.peer_port}"


def read_config(environment: Mapping[str, str] = os.environ) -> Config:
    """Reads the settings. Raises ConfigError naming the variable at fault."""
    env = _Environment(environment)
    service = env.text("MM_SERVICE_NAME", env.text("TAS_SERVICE_NAME"))
    if not service:
        raise ConfigError("MM_SERVICE_NAME is not set: it names the mesh that this instance joins")
    instance_id = env.text("WKUBE_POD_NAME", os.uname().nodename)[-INSTANCE_ID_CHARACTERS:].strip("-.")
    if not instance_id or "," in instance_id:
        raise ConfigError(f"WKUBE_POD_NAME gives the instance id {instance_id!r}, which cannot be used")
    if not (kv_store := env.text("KV_STORE")):
        raise ConfigError("KV_STORE is not set: it says where the registry is, as etcd:<file or host:port>")
    kv_prefix = env.text("MM_KVSTORE_PREFIX", "mm")
    if not KV_PREFIX.fullmatch(kv_prefix):
        raise ConfigError(f"MM_KVSTORE_PREFIX is {kv_prefix!r}: it must hold no slash and no white space")
    if named := next((name for name in TLS if env.text(name)), None):
        raise ConfigError(
            f"{named} is set: TLS is not supported yet, and plain text is not what was asked for"
        )
    runtime = env.target("INTERNAL_GRPC_PORT", "INTERNAL_GRPC_SOCKET_PATH") or _default_runtime()
    bind = env.text("MM_BIND_ADDRESS", "0.0.0.0")
    shared = env.shared_listen()
    return Config(
        service=service,
        instance_id=instance_id,
        host=env.text("WKUBE_POD_IPADDR", "127.0.0.1"),
        bind=bind,
        kv_store=kv_store,
        kv_prefix=kv_prefix,
        runtime_target=runtime,
        serving_target=env.target("INTERNAL_SERVING_GRPC_PORT", "INTERNAL_SERVING_GRPC_SOCKET_PATH")
        or runtime,
        grpc_port=env.port("MM_SVC_GRPC_PORT", env.port("TAS_SVC_GRPC_PORT", 0)),
        rest_port=env.port("MM_SVC_REST_PORT", 8008),
        peer_port=env.port("MM_PEER_PORT", 8080),
        probe_port=env.port("MM_PROBE_PORT", 8089),
        prestop_port=env.port("MM_PRESTOP_WAIT_PORT", 8090),
        metrics=env.metrics(),
        shared_grpc=tuple(address for kind, address in shared if kind == "grpc"),
        shared_rest=tuple(address for kind, address in shared if kind == "http"),
        max_message_bytes=env.number("MM_SVC_GRPC_MAX_MSG_SIZE", 16 * 1024 * 1024, least=1024),
        max_header_bytes=env.number("MM_SVC_GRPC_MAX_HEADERS_SIZE", 8192, least=1024),
        labels=tuple(sorted(env.words("MM_LABELS"))),
        location=env.text("MM_LOCATION", env.text("WKUBE_POD_IPADDR")),
        zone=env.text("MM_ZONE"),
        version=env.text("SERVICE_VERSION"),
        type_constraints=env.text("MM_TYPE_CONSTRAINTS"),
        type_constraints_path=env.file("MM_TYPE_CONSTRAINTS_PATH", "MM_TYPE_CONSTRAINTS"),
        dataplane_config=env.text("MM_DATAPLANE_CONFIG"),
        dataplane_config_path=env.file("MM_DATAPLANE_CONFIG_PATH", "MM_DATAPLANE_CONFIG"),
        default_owner=env.text("MM_DEFAULT_VMODEL_OWNER"),
        failure_expiry_ms=env.number(
            "MM_LOAD_FAILURE_EXPIRY_TIME_MS", USUAL_TERMS.expiry_ms, least=LEAST_FAILURE_EXPIRY_MS
        ),
        shutdown_seconds=env.number("SHUTDOWN_TIMEOUT_MS", 30_000, least=0) / 1000,
        fail_fast=FailFastTerms(
            enabled=env.text("MM_FAILFAST_UPGRADE_ENABLED", "true").lower() != "false",
            period_ms=env.number("BOOTSTRAP_CLEARANCE_PERIOD_MS", FAIL_FAST_TERMS.period_ms, least=0),
        ),
        scaling=ScalingTerms(
            threshold=env.number("MM_SCALEUP_RPM_THRESHOLD", SCALING_TERMS.threshold, least=LEAST_THRESHOLD),
            second_after_ms=env.number(
                "MM_SECOND_COPY_AFTER_MS", SCALING_TERMS.second_after_ms, least=LEAST_SECOND_COPY_MS
            ),
            second_gap_ms=env.number(
                "MM_SECOND_COPY_GAP_MS", SCALING_TERMS.second_gap_ms, least=LEAST_SECOND_COPY_MS
            ),
        ),
        multi_parallelism=env.number("MM_MULTI_PARALLELISM", 4, least=1),
        max_connection_age_s=env.number("MM_SVC_GRPC_MAX_CONNECTION_AGE_SECS", 0, least=0) or None,
        connection_age_grace_s=env.number("MM_SVC_GRPC_MAX_CONNECTION_AGE_GRACE_SECS", 0, least=0) or None,
        max_in_flight_per_copy=env.number("MM_MAX_INFLIGHT_PER_MODEL_COPY", 0, least=-1),
        info_metric=env.info_metric(),
        static_models=env.text("MM_AUTO_REGISTER_MODELS", env.text("MM_AUTO_REGISTER_MODEL")),
        static_models_path=env.path("MM_AUTO_REGISTER_MODELS_PATH", "MM_AUTO_REGISTER_MODEL_PATH"),
        ignored=env.ignored(),
        unsupported=env.given(UNSUPPORTED),
    )


def _default_runtime() -> str:
    if DEFAULT_RUNTIME_SOCKET.exists():
        return f"unix:{DEFAULT_RUNTIME_SOCKET}"
    return f"tcp:127.0.0.1:{DEFAULT_RUNTIME_PORT}"


class _Environment:
    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def text(self, name: str, default: str = "") -> str:
        return self._values.get(name, "").strip() or default

    def words(self, name: str) -> list[str]:
        return [word for part in self.text(name).split(",") if (word := part.strip())]

    def given(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in names if self.text(name) and self.text(name) != "false")

    def ignored(self) -> tuple[str, ...]:
        statsd = ("MM_METRICS",) if self.text("MM_METRICS").startswith("statsd") else ()
        return self.given(IGNORED) + statsd

    def path(self, *names: str) -> Path | None:
        return next((Path(self.text(name)) for name in names if self.text(name)), None)

    def number(self, name: str, default: int, *, least: int) -> int:
        text = self.text(name)
        if not text:
            return default
        try:
            value = int(text)
        except ValueError:
            raise ConfigError(f"{name} is {text!r}: it must be a whole number") from None
        if value < least:
            raise ConfigError(f"{name} is {value}: it must be at least {least}")
        return value

    def port(self, name: str, default: int) -> int:
        if self.text(name).upper() == "NONE":
            return 0
        value = self.number(name, default, least=0)
        if value > 65_535:  # noqa: PLR2004 - the largest port
            raise ConfigError(f"{name} is {value}: a port is at most 65535")
        return value

    def target(self, port: str, socket: str) -> str:
        if self.text(port) and self.text(socket):
            raise ConfigError(f"{port} and {socket} are both set: the server is at one of them")
        if path := self.text(socket):
            return f"unix:{path}"
        return f"tcp:127.0.0.1:{self.port(port, 0)}" if self.text(port) else ""

    def file(self, name: str, inline: str) -> Path | None:
        if self.text(name) and self.text(inline):
            raise ConfigError(f"{name} and {inline} are both set: use one")
        return Path(self.text(name)) if self.text(name) else None

    def metrics(self) -> Metrics | None:
        text = self.text("MM_METRICS", "disabled")
        kind, _, options = text.partition(":")
        if kind != "prometheus":
            return None
        values = dict(part.split("=", 1) for part in options.split(";") if "=" in part)
        port = _Environment({"MM_METRICS port": values.get("port", "")}).port("MM_METRICS port", 2112)
        return Metrics(port, values.get("scheme", "https") == "https")

    def info_metric(self) -> InfoMetric | None:
        text = self.text("MM_INFO_METRICS")
        if not text:
            return None
        name, _, rest = text.partition(";")
        pairs = [pair.partition("=")[::2] for pair in rest.split(",") if pair.strip()]
        labels = {label.strip(): self.text(variable.strip()) for label, variable in pairs}
        words = (name.strip(), *labels)
        if not all(METRIC_WORD.fullmatch(word) for word in words) or len(labels) > MAX_INFO_LABELS:
            raise ConfigError(
                f"MM_INFO_METRICS is {text!r}: it must be name;label=VARIABLE,label2=VARIABLE2 with at most "
                f"{MAX_INFO_LABELS} labels, all of letters, digits and _"
            )
        for label, variable in pairs:
            if not labels[label.strip()]:
                raise ConfigError(
                    f"MM_INFO_METRICS names the variable {variable.strip()!r}, which is not set"
                )
        return InfoMetric(name.strip(), labels)

    def shared_listen(self) -> list[tuple[str, str]]:
        pairs = []
        for word in self.words("MM_SHARED_LISTEN"):
            kind, _, address = word.partition("=")
            if kind not in {"grpc", "http"} or ":" not in address:
                raise ConfigError(
                    f"MM_SHARED_LISTEN has {word!r}: it must be grpc=host:port or http=host:port"
                )
            pairs.append((kind, address))
        return pairs

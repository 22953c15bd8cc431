"""What the policy measures; the byte path adds its own. Names and buckets are those of the original mesh."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest

from mesh.cache import Refusal
from mesh.config import InfoMetric
from mesh.errors import ConfigError
from mesh.registry import Census
from mesh.scaling import Growth, Shrinkage
from store.records import InstanceRecord

MILLISECONDS = (
    *(0.5, 1, 2, 5, 10, 20, 50, 75, 100, 200, 500),
    *(1_000, 2_000, 5_000, 10_000, 20_000, 60_000, 120_000, 300_000),
)
CENSUS_GAUGES = (
    ("modelmesh_models_managed_total", "Registered models, of the whole mesh"),
    ("modelmesh_models_loaded_total", "Models with a loaded copy, of the whole mesh"),
    ("modelmesh_models_with_failure_total", "Models with a failed load, of the whole mesh"),
)
"""Gauges of a Census, which only the leader shows; a sum over all instances is the mesh's."""
BYTES = tuple(256 * 1024 * 4**power for power in range(8))
_HOUR = 3_600_000
AGES = (
    *(30_000, 300_000, 900_000, _HOUR, 4 * _HOUR, 12 * _HOUR),
    *(24 * _HOUR, 168 * _HOUR, 720 * _HOUR, 2_160 * _HOUR),
)
"""30 s to 90 days, in ms."""


@dataclass(frozen=True, slots=True)
class Health:
    """What an instance knows of itself beyond its record."""

    ready: bool
    """Whether it takes requests, as `/ready` says."""
    runtime_ready: bool
    registry_silence: float
    """Seconds since the registry last answered."""
    corrupt_records: int
    pending_loads: int
    instances: int
    """That it sees, itself included."""


class PolicyMetrics:
    """Counters and gauges of one instance."""

    def __init__(self, info: InfoMetric | None = None) -> None:
        """`info` is a metric of the user's. Raises ConfigError where there is one of that name."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.load = self._histogram(
            "modelmesh_loadmodel_milliseconds", "Time of successful loads on this instance", MILLISECONDS
        )
        self.size = self._histogram("modelmesh_loaded_model_size_bytes", "Size of models loaded here", BYTES)
        self.load_failures = Counter(
            "modelmesh_loadmodel_failure", "Failed loads on this instance", registry=self._registry
        )
        self.queue_delay = self._histogram(
            "modelmesh_loading_queue_delay_milliseconds",
            "Time that loads waited for their turn and for memory",
            MILLISECONDS,
        )
        self.sizing = self._histogram(
            "modelmesh_model_sizing_milliseconds",
            "Time that the model server took to measure a loaded model",
            MILLISECONDS,
        )
        self.unload = self._histogram(
            "modelmesh_unloadmodel_milliseconds",
            "Time until the model server had unloaded a model, tries that failed included",
            MILLISECONDS,
        )
        self.unload_failures = Counter(
            "modelmesh_unloadmodel_failure",
            "Models whose memory is planned without, as they could not be unloaded",
            registry=self._registry,
        )
        self.unload_attempt_failures = Counter(
            "modelmesh_unloadmodel_attempt_failure",
            "Tries to unload a model that failed",
            registry=self._registry,
        )
        self.age_at_eviction = self._histogram(
            "modelmesh_age_at_eviction_milliseconds",
            "Time since the last use of copies that made room for others",
            AGES,
        )
        self._refusals = Counter(
            "modelmesh_refused_loads", "Loads that this instance refused", ["reason"], registry=self._registry
        )
        # A series that begins with its first event hides that one from `rate`.
        for refusal in Refusal:
            self._refusals.labels(refusal.name)
        self.peer_load_failures = Counter(
            "modelmesh_peer_load_failures",
            "Loads at another instance that failed, by gRPC code",
            ["code"],
            registry=self._registry,
        )
        self._writes = self._histogram(
            "modelmesh_registry_write_milliseconds",
            "Time of writing changed records of models to the registry",
            MILLISECONDS,
        )
        self._write_failures = Counter(
            "modelmesh_registry_write_failures",
            "Records of models that could not be written",
            registry=self._registry,
        )
        self.evictions = Counter(
            "modelmesh_model_evicted", "Copies that left this instance", registry=self._registry
        )
        self.choices = Counter(
            "modelmesh_placement",
            "Decisions for requests without a copy",
            ["reason"],
            registry=self._registry,
        )
        self.scaling = Counter(
            "modelmesh_scaling",
            "Copies added, given up and handed over without a request that waited for them",
            ["reason"],
            registry=self._registry,
        )
        for growth in (*Growth, *Shrinkage):
            self.scaling.labels(growth.name)
        self._lru = self._gauge(
            "modelmesh_instance_lru_seconds", "Last use of the oldest copy, seconds since 1970"
        )
        self._lru_age = self._gauge(
            "modelmesh_instance_lru_age_seconds", "Time since the oldest copy was used"
        )
        self._capacity = self._gauge("modelmesh_instance_capacity_bytes", "Memory that models may use")
        self._used = self._gauge(
            "modelmesh_instance_used_bytes", "Memory that models use, or that is being freed"
        )
        self._used_bps = self._gauge("modelmesh_instance_used_bps", "Used memory in 1/100 % of the capacity")
        self._models = self._gauge("modelmesh_instance_models_total", "Copies on this instance")
        self._corrupt_records = self._gauge(
            "modelmesh_registry_corrupt_records", "Registry records that cannot be read; the log names them"
        )
        self._silence = self._gauge(
            "modelmesh_registry_silence_seconds",
            "Time since the registry last confirmed this instance's lease",
        )
        self._pending = self._gauge("modelmesh_pending_loads", "Loads that wait or run on this instance")
        self._instances = self._gauge("modelmesh_instances", "Instances that this one sees, itself included")
        self._ready = self._gauge("modelmesh_instance_ready", "1 while this instance takes requests")
        self._runtime_ready = self._gauge("modelmesh_runtime_ready", "1 while the model server is ready")
        self._leader = self._gauge(
            "modelmesh_instance_leader", "1 on the instance that does the housekeeping"
        )
        if info:
            self._inform(info)
        self._leaders: tuple[Gauge, ...] = ()

    def instance(self, record: InstanceRecord, now: int) -> None:
        """Sets the gauges; `now` in ms since 1970."""
        self._lru.set(record.lru_time / 1000)
        self._lru_age.set((now - record.lru_time) / 1000 if record.lru_time else 0)
        self._capacity.set(record.capacity.memory)
        self._used.set(record.used.memory)
        self._used_bps.set(
            record.used.memory * 10_000 // record.capacity.memory if record.capacity.memory else 0
        )
        self._models.set(record.count)

    def health(self, health: Health) -> None:
        """Sets the gauges of what the record does not say."""
        self._ready.set(health.ready)
        self._runtime_ready.set(health.runtime_ready)
        self._silence.set(health.registry_silence)
        self._corrupt_records.set(health.corrupt_records)
        self._pending.set(health.pending_loads)
        self._instances.set(health.instances)

    def refused(self, refusal: Refusal) -> None:
        """A load was refused here."""
        self._refusals.labels(refusal.name).inc()

    def written(self, milliseconds: float, failures: int) -> None:
        """Records were written to the registry, all but `failures` of them."""
        self._writes.observe(milliseconds)
        self._write_failures.inc(failures)

    def lead(self, census: Census | None) -> None:
        """Shows what there is in the whole mesh; None where this instance does not lead."""
        self._leader.set(census is not None)
        if census is None:
            for gauge in self._leaders:
                self._registry.unregister(gauge)
            self._leaders = ()
            return
        self._leaders = self._leaders or tuple(self._gauge(name, text) for name, text in CENSUS_GAUGES)
        for gauge, count in zip(self._leaders, census, strict=True):
            gauge.set(count)

    def text(self) -> str:
        """The Prometheus text format."""
        return generate_latest(self._registry).decode()

    def _inform(self, info: InfoMetric) -> None:
        try:
            gauge = Gauge(info.name, "As MM_INFO_METRICS says", list(info.labels), registry=self._registry)
        except ValueError as error:
            raise ConfigError(f"MM_INFO_METRICS: {error}") from error
        (gauge.labels(**info.labels) if info.labels else gauge).set(1)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self._registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self._registry)

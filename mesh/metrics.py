"""What the policy measures; the byte path adds its own. Names and buckets are those of the original mesh."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from mesh.registry import Census
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


class PolicyMetrics:
    """Counters and gauges of one instance."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.cache_miss = self._histogram(
            "modelmesh_cache_miss_milliseconds",
            "Time that requests waited for a model to be loaded",
            MILLISECONDS,
        )
        self.load = self._histogram(
            "modelmesh_loadmodel_milliseconds", "Time of successful loads on this instance", MILLISECONDS
        )
        self.size = self._histogram("modelmesh_loaded_model_size_bytes", "Size of models loaded here", BYTES)
        self.load_failures = Counter(
            "modelmesh_loadmodel_failure", "Failed loads on this instance", registry=self._registry
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
        self.corrupt_records = self._gauge(
            "modelmesh_registry_corrupt_records", "Registry records that cannot be read; the log names them"
        )
        self._leader = self._gauge(
            "modelmesh_instance_leader", "1 on the instance that does the housekeeping"
        )
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

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self._registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self._registry)

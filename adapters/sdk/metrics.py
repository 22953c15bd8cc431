"""Metrics of an adapter, served on `ADAPTER_METRICS_PORT` where that is set."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

LOADS = Counter("modelmesh_adapter_loads", "Loads that have ended, by their gRPC code", ["code"])
LOAD_SECONDS = Histogram(
    "modelmesh_adapter_load_seconds",
    "Time of loads that succeeded: pull, layout and the server's own",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
)
MODELS = Gauge("modelmesh_adapter_models", "Models that the server holds")
SERVER_LIVES = Counter("modelmesh_adapter_server_lives", "Times that the model server became usable")

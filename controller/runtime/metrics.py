"""Prometheus metrics, under the names that dashboards for Go operators already use.

They are process-wide, as in controller-runtime: one set per process, told apart by the controller's name.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

# Buckets of controller-runtime: 10^-8 … 10^3 s for queues, 5 ms … 60 s for reconciles.
_QUEUE_BUCKETS = tuple(10.0**exponent for exponent in range(-8, 4))
_RECONCILE_BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    *(1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0, 20.0, 25.0, 30.0),
    *(40.0, 50.0, 60.0),
)

QUEUE_DEPTH = Gauge("workqueue_depth", "Keys waiting in the queue", ["name"])
QUEUE_ADDS = Counter("workqueue_adds", "Keys added to the queue", ["name"])
QUEUE_RETRIES = Counter("workqueue_retries", "Keys added again with back-off", ["name"])
QUEUE_DURATION = Histogram(
    "workqueue_queue_duration_seconds",
    "How long a key waits",
    ["name"],
    buckets=_QUEUE_BUCKETS,
)
WORK_DURATION = Histogram(
    "workqueue_work_duration_seconds", "How long work on a key takes", ["name"], buckets=_QUEUE_BUCKETS
)
UNFINISHED_WORK = Gauge(
    "workqueue_unfinished_work_seconds", "Seconds of work in progress, summed over keys", ["name"]
)
LONGEST_RUNNING = Gauge(
    "workqueue_longest_running_processor_seconds", "Seconds that the longest-running work has taken", ["name"]
)

RECONCILES = Counter(
    "controller_runtime_reconcile",
    "Reconciles by result",
    ["controller", "result"],
)
RECONCILE_ERRORS = Counter("controller_runtime_reconcile_errors", "Reconciles that failed", ["controller"])
RECONCILE_TIME = Histogram(
    "controller_runtime_reconcile_time_seconds",
    "How long a reconcile takes",
    ["controller"],
    buckets=_RECONCILE_BUCKETS,
)
ACTIVE_WORKERS = Gauge("controller_runtime_active_workers", "Workers that are reconciling", ["controller"])
MAX_WORKERS = Gauge("controller_runtime_max_concurrent_reconciles", "Workers there are", ["controller"])

LEADER = Gauge("leader_election_master_status", "1 while this process holds the lease", ["name"])

REQUESTS = Counter("rest_client_requests", "Requests to the API server", ["code", "method", "host"])

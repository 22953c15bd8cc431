"""The series that our programs export, as they show them when they have just begun."""

import re
from collections import Counter
from functools import cache

import prometheus_client
from prometheus_client.exposition import generate_latest

import adapters.sdk.metrics
import controller.runtime.metrics  # noqa: F401 - both register their metrics
from mesh.metrics import PolicyMetrics
from mesh.native import NativeBytePath
from mesh.registry import Census
from tests.mesh.conftest import config

HEADS = re.compile(r"^# TYPE (\S+) (\S+)$", re.MULTILINE)
SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("",), "gauge": ("",)}
assert adapters.sdk.metrics.LOADS


def mesh_text() -> str:
    """What a mesh instance that leads answers to a scrape."""
    policy = PolicyMetrics()
    policy.lead(Census(0, 0, 0))
    return policy.text() + NativeBytePath(config("one", 1)).metrics()


def families(text: str) -> Counter[str]:
    """Names of metrics, and how often each is declared."""
    return Counter(name for name, _ in HEADS.findall(text))


@cache
def series() -> frozenset[str]:
    """Names of series of mesh, adapters and controller."""
    text = mesh_text() + generate_latest(prometheus_client.REGISTRY).decode()
    return frozenset(
        name + suffix for name, kind in HEADS.findall(text) for suffix in SUFFIXES.get(kind, ("",))
    )

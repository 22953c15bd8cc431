"""Annotations of a runtime ask for a HorizontalPodAutoscaler; they change it, and take it away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fvt import overlay
from fvt.objects import GROUP
from fvt.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fvt.cluster import JSON, Cluster

RUNTIME = "mlserver-1.x"
AUTOSCALER = f"modelmesh-serving-{RUNTIME}"
KEYS = ("autoscalerClass", "metrics", "targetUtilizationPercentage", "min-scale", "max-scale")


def annotate(cluster: Cluster, **annotations: str | None) -> None:
    """Set annotations of the runtime, or remove them."""
    named = {f"{GROUP}/{key.replace('_', '-')}": text for key, text in annotations.items()}
    cluster.patch("servingruntime", RUNTIME, {"metadata": {"annotations": named}})


@pytest.fixture
def annotated(installed: Cluster, needs: Callable[[str], None]) -> Iterator[Cluster]:
    """The installation; annotations of the runtime are removed at the end."""
    needs("mlserver")
    yield installed
    annotate(installed, **dict.fromkeys(KEYS))
    wait(lambda: installed.find("hpa", AUTOSCALER) is None, "the autoscaler to be gone")
    overlay.wait_settled(installed)


def autoscaler(cluster: Cluster, low: int, high: int, metric: str, target: int) -> JSON:
    """Wait for an autoscaler like this."""

    def look() -> JSON | None:
        found = cluster.find("hpa", AUTOSCALER)
        assert found, "there is none"
        spec = found["spec"]
        (chosen,) = spec["metrics"]
        resource = chosen["resource"]
        seen = (
            spec["minReplicas"],
            spec["maxReplicas"],
            resource["name"],
            resource["target"]["averageUtilization"],
        )
        assert seen == (low, high, metric, target), seen
        return found

    return wait(look, f"an autoscaler with {low} to {high} pods by {target} % {metric}") or {}


def test_an_autoscaler_comes_changes_and_goes(annotated: Cluster) -> None:
    annotate(annotated, autoscalerClass="hpa")
    found = autoscaler(annotated, 1, 1, "cpu", 80)
    assert found["spec"]["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": AUTOSCALER,
    }
    (owner,) = found["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("ServingRuntime", RUNTIME)
    annotate(annotated, metrics="memory", targetUtilizationPercentage="60", max_scale="2")
    autoscaler(annotated, 1, 2, "memory", 60)
    annotate(annotated, min_scale="2")
    autoscaler(annotated, 2, 2, "memory", 60)
    annotate(annotated, **dict.fromkeys(KEYS))
    wait(lambda: annotated.find("hpa", AUTOSCALER) is None, "the autoscaler to be gone")

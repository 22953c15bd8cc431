"""Runtimes without models have no pods, after a grace period."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from fvt import overlay
from fvt.objects import isvc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fvt.cluster import Cluster
    from fvt.inference import Inference

DEPLOYMENT = "modelmesh-serving-mlserver-1.x"
GRACE_SECONDS = 15


@pytest.fixture
def scaled(installed: Cluster, needs: Callable[[str], None]) -> Iterator[Cluster]:
    """The installation with scale to zero, and no model."""
    needs("mlserver")
    overlay.configure(installed, scaleToZero={"enabled": True, "gracePeriodSeconds": GRACE_SECONDS})
    installed.wait_deployment(DEPLOYMENT, 0)
    yield installed
    overlay.configure(installed)
    installed.wait_deployment(DEPLOYMENT, 1)


def test_pods_come_with_the_first_model_stay_for_the_grace_and_go(
    scaled: Cluster, inference: Inference, name: str
) -> None:
    scaled.apply(isvc(name))
    scaled.wait_deployment(DEPLOYMENT, 1)
    scaled.wait_ready("isvc", name)
    assert inference.digit(name) == 8
    (pod,) = scaled.ready_pods(f"name={DEPLOYMENT}")

    deleted = time.monotonic()
    scaled.delete("isvc", name)
    scaled.apply(isvc(name))
    scaled.wait_ready("isvc", name)
    assert inference.digit(name) == 8
    if time.monotonic() - deleted < GRACE_SECONDS:
        (same,) = scaled.ready_pods(f"name={DEPLOYMENT}")
        assert same["metadata"]["uid"] == pod["metadata"]["uid"]

    deleted = time.monotonic()
    scaled.delete("isvc", name)
    scaled.wait_deployment(DEPLOYMENT, 0)
    assert time.monotonic() - deleted >= GRACE_SECONDS

    # At once, while the old pod is still going away: the model is loaded without being asked for, and before
    # the mesh's next look around, which is two minutes later.
    scaled.apply(isvc(name))
    scaled.wait_ready("isvc", name, 100)


@pytest.mark.long
def test_a_model_that_no_runtime_supports_brings_no_pods(scaled: Cluster, name: str) -> None:
    scaled.apply(isvc(name, "abacus"))
    scaled.wait_failure("isvc", name, "NoSupportingRuntime")
    assert scaled.get("deployment", DEPLOYMENT)["spec"]["replicas"] == 0

"""Changes of ConfigMap `model-serving-config` are in effect at once, without a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fvt import overlay
from fvt.cluster import CONTROLLER_PODS, SERVICE
from fvt.inference import EIGHT
from fvt.objects import isvc
from fvt.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fvt.cluster import JSON, Cluster
    from fvt.inference import Inference

DEPLOYMENT = f"{SERVICE}-mlserver-1.x"


@pytest.fixture
def configured(installed: Cluster, needs: Callable[[str], None]) -> Iterator[Cluster]:
    """The installation; its settings are put back, and the controller has gone on all the time."""
    needs("mlserver")
    before = _controller(installed)
    yield installed
    overlay.configure(installed)
    overlay.wait_settled(installed)
    assert _controller(installed) == before


def _controller(cluster: Cluster) -> list[tuple[str, int]]:
    return [
        (pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"])
        for pod in cluster.items("pods", CONTROLLER_PODS)
    ]


def _ports(cluster: Cluster) -> set[str]:
    return {port["name"] for port in cluster.get("service", SERVICE)["spec"]["ports"]}


@pytest.mark.long
def test_rest_can_be_turned_off_and_on(configured: Cluster, inference: Inference, name: str) -> None:
    configured.apply(isvc(name))
    configured.wait_ready("isvc", name)
    assert "http" in _ports(configured)
    overlay.configure(configured, restProxy={"enabled": False})
    wait(lambda: "http" not in _ports(configured), "the Service to have no port http")

    def url() -> str:
        return str(configured.status("isvc", name)["components"]["predictor"].get("restUrl", ""))

    wait(lambda: not url(), "the status to name no REST address")
    overlay.wait_settled(configured)
    assert inference.digit(name) == 8
    overlay.configure(configured)
    wait(lambda: "http" in _ports(configured), "the Service to have port http")
    wait(url, "the status to name a REST address")
    overlay.wait_settled(configured)
    configured.wait_ready("isvc", name)
    assert inference.rest_row(name, EIGHT).status_code == 200


def test_more_pods_serve_the_same_models(configured: Cluster, inference: Inference, name: str) -> None:
    configured.apply(isvc(name))
    configured.wait_ready("isvc", name)
    overlay.configure(configured, podsPerRuntime=2)
    configured.wait_deployment(DEPLOYMENT, 2)
    configured.wait_ready("isvc", name)
    assert inference.digit(name) == 8
    overlay.configure(configured)
    configured.wait_deployment(DEPLOYMENT, 1)
    configured.wait_ready("isvc", name)
    assert inference.digit(name) == 8


def test_settings_that_cannot_be_used_change_nothing_and_say_so(configured: Cluster) -> None:
    before = configured.get("deployment", DEPLOYMENT)["spec"]
    bad: JSON = overlay.settings()
    bad["data"]["config.yaml"] = "podsPerRuntime: [many]\n"
    configured.apply(bad)

    def look() -> bool:
        found = [
            event
            for event in configured.items("events")
            if event["involvedObject"]["name"] == overlay.SETTINGS
            and event["reason"] == "InvalidConfiguration"
        ]
        assert any("podsPerRuntime" in event["message"] for event in found), found
        return True

    wait(look, "an event InvalidConfiguration that names podsPerRuntime")
    assert configured.get("deployment", DEPLOYMENT)["spec"] == before


@pytest.mark.long
def test_labels_of_pods_reach_the_pods(configured: Cluster) -> None:
    overlay.configure(configured, runtimePodLabels={"example.org/Team": "models"})

    def look() -> bool:
        template = configured.get("deployment", DEPLOYMENT)["spec"]["template"]
        assert template["metadata"]["labels"].get("example.org/Team") == "models", template["metadata"]
        return True

    wait(look, "the label in the pod template")

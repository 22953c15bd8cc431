"""Running the script again, and removing an installation of one namespace (the last of this part)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fvt import overlay
from fvt.install import install, remove_namespace, uninstall
from fvt.inventory import inventory
from fvt.objects import isvc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fvt.cluster import Cluster
    from fvt.inference import Inference

LEFT_BY_KUBERNETES = {"ConfigMap {}/kube-root-ca.crt", "ServiceAccount {}/default"}


@pytest.fixture
def ours(installed: Cluster, pytestconfig: pytest.Config) -> Cluster:
    """An installation that this run made."""
    if pytestconfig.getoption("--installed"):
        pytest.skip("would change the installation that --installed names")
    return installed


def test_installing_again_changes_nothing_for_models(
    ours: Cluster, config: Path, inference: Inference, name: str, needs: Callable[[str], None]
) -> None:
    needs("mlserver")
    ours.apply(isvc(name))
    ours.wait_ready("isvc", name)
    pods = {pod["metadata"]["uid"] for pod in ours.ready_pods("modelmesh-service")}
    output = install(ours, config, "--namespace-scope-mode", "--fvt")
    assert output.strip().endswith("Successfully installed ModelMesh Serving!")
    assert inference.digit(name) == 8
    assert pods <= {pod["metadata"]["uid"] for pod in ours.ready_pods("modelmesh-service")}


def test_uninstalling_leaves_nothing(ours: Cluster, config: Path) -> None:
    ours.delete("isvc,predictor", "--all")
    uninstall(ours, config)
    ours.delete("configmap", overlay.SETTINGS, "fvt-installed")
    namespace = ours.namespace
    kept = {line.format(namespace) for line in LEFT_BY_KUBERNETES}
    left = {line for line in inventory(ours) if f" {namespace}/" in line or "modelmesh" in line}
    # Claims are in use until their pods are gone; Namespace and what Kubernetes puts into it stay.
    assert left - kept - {f"Namespace /{namespace}"} == set()
    remove_namespace(ours, namespace)

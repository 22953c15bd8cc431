"""One controller for several namespaces, and an uninstall that leaves nothing."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import TYPE_CHECKING, NamedTuple

import grpc
import pytest

from fvt import overlay
from fvt.cluster import RUNTIME_PODS, SERVICE, Cluster
from fvt.conftest import RUNTIMES, inference_of
from fvt.install import clear, install, make_namespace, remove_namespace, uninstall
from fvt.inventory import inventory
from fvt.objects import GROUP, XGBOOST, isvc
from fvt.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fvt.inference import Inference

ONE, TWO = "fvt-one", "fvt-two"
DEPLOYMENT = f"{SERVICE}-mlserver-1.x"
QUICK = {"enabled": True, "gracePeriodSeconds": 5}


class Wide(NamedTuple):
    """An installation that serves the controller's namespace and two of users."""

    controller: Cluster
    one: Cluster
    two: Cluster


@pytest.fixture(scope="module")
def before(cluster: Cluster, config: Path, pytestconfig: pytest.Config) -> set[str]:
    """What is in the cluster before anything is installed; the namespaces are there and empty."""
    if pytestconfig.getoption("--installed"):
        pytest.skip("installs for the whole cluster, and --installed says that something is installed")
    clear(cluster, config)
    for name in (ONE, TWO):
        make_namespace(cluster, name)
    return inventory(cluster)


@pytest.fixture(scope="module")
def wide(cluster: Cluster, before: set[str], config: Path, servers: frozenset[str]) -> Wide:
    """Modelmesh installed for the cluster, with two further namespaces."""
    if "mlserver" not in servers:
        pytest.skip("no image of mlserver is on the cluster")
    assert before
    overlay.configure(cluster, scaleToZero=QUICK)
    output = install(cluster, config, "--quickstart", "--user-namespaces", f"{ONE} {TWO}")
    assert output.strip().endswith("Successfully installed ModelMesh Serving!")
    for server, runtime in RUNTIMES.items():
        if server not in servers:
            cluster.patch("clusterservingruntime", runtime, {"spec": {"disabled": True}})
    return Wide(cluster, cluster.within(ONE), cluster.within(TWO))


@pytest.fixture
def asked(wide: Wide, pytestconfig: pytest.Config) -> Iterator[tuple[Inference, Inference]]:
    """The inference endpoints of the two namespaces."""
    found = [inference_of(cluster, pytestconfig) for cluster in (wide.one, wide.two)]
    yield found[0][0], found[1][0]
    for _, forwards in found:
        for forward in forwards:
            forward.close()


def test_the_runtimes_are_the_clusters(wide: Wide) -> None:
    names = {item["metadata"]["name"] for item in wide.controller.items("clusterservingruntimes")}
    assert set(RUNTIMES.values()) <= names
    assert wide.controller.items("servingruntimes") == []


def test_namespaces_have_models_of_the_same_name_and_do_not_see_each_others(
    wide: Wide, asked: tuple[Inference, Inference]
) -> None:
    in_one, in_two = asked
    wide.one.apply(isvc("same"), isvc("only-one"))
    wide.two.apply(isvc("same", "xgboost", XGBOOST))
    wide.one.wait_ready("isvc", "same")
    wide.one.wait_ready("isvc", "only-one")
    status = wide.two.wait_ready("isvc", "same")
    assert status["url"] == f"grpc://{SERVICE}.{TWO}:8033"
    assert in_one.digit("same") == in_one.digit("only-one") == 8
    assert in_two.rest_row("same", [0.5] * 30).status_code == 200
    with pytest.raises(grpc.RpcError) as caught:
        in_two.digit("only-one")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    secret = b64decode(wide.two.get("secret", "model-serving-etcd")["data"]["etcd_connection"])
    assert json.loads(secret)["root_prefix"].endswith(f"/mm_ns/{TWO}")


def test_a_namespaces_own_runtime_takes_the_place_of_the_clusters(wide: Wide) -> None:
    own = wide.one.get("clusterservingruntime", "mlserver-1.x")
    own = {
        "apiVersion": own["apiVersion"],
        "kind": "ServingRuntime",
        "metadata": {"name": "mlserver-1.x"},
        "spec": own["spec"] | {"disabled": True},
    }
    try:
        wide.two.apply(own)
        wide.two.apply(isvc("off", runtime="mlserver-1.x"))
        wide.two.wait_failure("isvc", "off", "RuntimeNotRecognized")
        assert wide.one.ready_pods(RUNTIME_PODS)
    finally:
        wide.two.delete("isvc", "off")
        wide.two.delete("servingruntime", "mlserver-1.x")


def test_a_namespace_without_the_label_is_left_and_taken_back(
    wide: Wide, asked: tuple[Inference, Inference]
) -> None:
    wide.two.apply(isvc("back"))
    wide.two.wait_ready("isvc", "back")
    wide.controller.kubectl("label", "namespace", TWO, "modelmesh-enabled-")

    def empty() -> bool:
        for kind in ("deployments", "services"):
            assert wide.two.items(kind, "app.kubernetes.io/managed-by=modelmesh-controller") == [], kind
        return True

    wait(empty, f"namespace {TWO} to have no runtime and no Service")
    wide.controller.kubectl("label", "namespace", TWO, "modelmesh-enabled=true")
    wide.two.wait_ready("isvc", "back")
    assert asked[1].digit("back") == 8
    wide.two.delete("isvc", "back")


def test_the_uninstall_leaves_nothing(wide: Wide, before: set[str], config: Path) -> None:
    uninstall(wide.controller, config, "--user-namespaces", f"{ONE} {TWO}")
    # The one thing that belongs to the user, and so to this suite.
    wide.controller.delete("configmap", overlay.SETTINGS)

    def look() -> bool:
        left = inventory(wide.controller) - before
        assert not left, f"left: {sorted(left)}"
        return True

    wait(look, "the cluster to be as it was")
    found = wide.controller.run("get", "crd", f"inferenceservices.{GROUP}")
    assert "not found" in found.stderr
    for name in (ONE, TWO, wide.controller.namespace):
        remove_namespace(wide.controller, name)

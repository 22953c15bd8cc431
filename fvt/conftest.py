"""Options and fixtures of all parts, and the report of a failure."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fvt import overlay, report
from fvt.cluster import SERVICE, Cluster
from fvt.forward import Forward
from fvt.inference import FixedAddress, Inference
from fvt.install import install, make_namespace
from fvt.models import Bucket

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

CASE_SECONDS = 900
"""With an installation, which the first case of a part waits for."""
IMAGES = {
    "mlserver": "seldonio/mlserver",
    "triton": "nvidia/tritonserver",
    "torchserve": "pytorch/torchserve",
    "ovms": "openvino/model_server",
}
RUNTIMES = {
    "mlserver": "mlserver-1.x",
    "triton": "triton-2.x",
    "torchserve": "torchserve-0.x",
    "ovms": "ovms-1.x",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that choose the cluster and what is there already."""
    group = parser.getgroup("fvt")
    group.addoption("--kubeconfig", help="the cluster; default: that of KUBECONFIG")
    group.addoption("--namespace", default=SERVICE, help="of the installation (default: %(default)s)")
    group.addoption("--installed", action="store_true", help="use what is installed there, and leave it")
    group.addoption("--grpc-address", help="HOST:PORT of inference by gRPC, in place of a port-forward")
    group.addoption("--rest-address", help="HOST:PORT of inference by REST, in place of a port-forward")
    group.addoption(
        "--s3-address", help="HOST:PORT of the S3 server with the samples, in place of a port-forward"
    )
    group.addoption(
        "--servers",
        default="auto",
        help="model servers whose images the cluster can run, such as mlserver,triton; auto: those whose "
        "image is on a node, as far as the cluster tells",
    )
    group.addoption("--short", action="store_true", help="leave out the cases that are marked as long")
    group.addoption("--report", default=".modelmesh/fvt", help="folder for what a failure leaves to be read")


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", "long: takes a minute or more; --short leaves it out")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose the cases, and give each the time that real pods take on a busy machine."""
    if config.getoption("--short"):
        long = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)
    for item in items:
        item.add_marker(pytest.mark.timeout(CASE_SECONDS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add objects, events and logs to a failure."""
    result = yield
    if result.failed and hasattr(item, "funcargs"):
        found = next((value for value in item.funcargs.values() if isinstance(value, Cluster)), None)
        if found is not None:
            name = re.sub(r"\W+", "-", f"{item.name}-{result.when}")
            folder = Path(item.config.getoption("--report")).absolute() / name
            result.sections.append((f"cluster ({found.namespace})", report.dump(found, folder)))
    return result


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Keep other workers of this user out."""
    with (Path(tempfile.gettempdir()) / f"modelmesh-fvt-{os.getuid()}-{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The cluster, by a copy of the kubeconfig: the install script sets the namespace in it."""
    if shutil.which("kubectl") is None:
        pytest.exit("kubectl is missing: it is the FVT's client (https://kubernetes.io/docs/tasks/tools)", 2)
    chosen = pytestconfig.getoption("--kubeconfig")
    named = Cluster(Path(chosen).absolute() if chosen else None, pytestconfig.getoption("--namespace"))
    copy = tmp_path_factory.mktemp("cluster") / "kubeconfig"
    copy.write_text(named.kubectl("config", "view", "--raw", "--flatten", "--minify"))
    copy.chmod(0o600)
    found = Cluster(copy, named.namespace)
    seen = found.run("version", seconds=30)
    if seen.returncode:
        pytest.exit(f"no cluster answers: {seen.stderr.strip()}", 2)
    return found


@pytest.fixture(scope="session")
def servers(cluster: Cluster, pytestconfig: pytest.Config) -> frozenset[str]:
    """The model servers that can run on the cluster."""
    chosen = pytestconfig.getoption("--servers")
    if chosen != "auto":
        return frozenset(chosen.split(","))
    images = " ".join(
        name
        for node in cluster.items("nodes")
        for image in node["status"].get("images", [])
        for name in image.get("names") or []
    )
    return frozenset(server for server, image in IMAGES.items() if image in images)


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped `config`, with requests that a small machine can grant."""
    return overlay.write(tmp_path_factory.mktemp("overlay"))


@pytest.fixture(scope="session")
def installed(cluster: Cluster, servers: frozenset[str], request: pytest.FixtureRequest) -> Cluster:
    """The cluster with Modelmesh in one namespace, and runtimes whose pods are there all the time."""
    if request.config.getoption("--installed"):
        return cluster
    with one_at_a_time(cluster.namespace):
        make_namespace(cluster, cluster.namespace)
        ready = cluster.find("configmap", "fvt-installed")
        if ready is None:
            overlay.configure(cluster)
            config = request.getfixturevalue("config")
            install(cluster, config, "--namespace-scope-mode", "--fvt")
            for server, runtime in RUNTIMES.items():
                if server not in servers:
                    cluster.patch("servingruntime", runtime, {"spec": {"disabled": True}})
            overlay.wait_settled(cluster)
            cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "fvt-installed"}})
    return cluster


@pytest.fixture(scope="session")
def models(installed: Cluster, pytestconfig: pytest.Config) -> Iterator[Bucket]:
    """The bucket of the sample models, with those that cases need besides."""
    address = pytestconfig.getoption("--s3-address")
    with Forward(installed, "service/minio", 9000) as forward:
        bucket = Bucket(FixedAddress(address) if address else forward, installed)
        with one_at_a_time("bucket"):
            bucket.fill()
        yield bucket


def inference_of(cluster: Cluster, config: pytest.Config) -> tuple[Inference, tuple[Forward, Forward]]:
    """Return the inference endpoint of a namespace, and what has to be closed."""
    forwards = tuple(Forward(cluster, f"service/{SERVICE}", port) for port in (8033, 8008))
    fixed = (config.getoption("--grpc-address"), config.getoption("--rest-address"))
    addresses = [
        FixedAddress(text) if text else forward for text, forward in zip(fixed, forwards, strict=True)
    ]
    return Inference(addresses[0], addresses[1]), (forwards[0], forwards[1])


@pytest.fixture(scope="session")
def inference(installed: Cluster, pytestconfig: pytest.Config) -> Iterator[Inference]:
    """The inference endpoint of the installation."""
    found, forwards = inference_of(installed, pytestconfig)
    yield found
    for forward in forwards:
        forward.close()


@pytest.fixture
def needs(servers: frozenset[str]) -> object:
    """A function that leaves a case out where its model server cannot run."""

    def check(server: str) -> None:
        if server not in servers:
            pytest.skip(f"no image of {server} is on the cluster")

    return check


@pytest.fixture
def name(request: pytest.FixtureRequest, installed: Cluster) -> Iterator[str]:
    """A name for a case's objects, which are removed after it."""
    digest = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:6]
    stem = re.sub(r"[^a-z0-9]+", "-", request.node.originalname.lower().removeprefix("test_"))[:30].strip("-")
    chosen = f"{stem}-{digest}"
    yield chosen
    installed.delete("inferenceservice,predictor", chosen)

"""The example of a server that speaks the SPI, in its two forms, in real pods.

The example's image is stood in for by our adapter image, which has the same Python packages, with the
example's files from a ConfigMap.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from fvt.objects import config_map, isvc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fvt.cluster import JSON, Cluster
    from fvt.inference import Inference
    from fvt.models import Bucket

EXAMPLE = Path(__file__).parents[2] / "runtimes" / "examples" / "own-server"
MODEL = "fvt/linear.json"
FILES = ("server.py", "protocol/*.py", "models/*.json")
CONFIG = "own-server-files"
OTHER_USER = 3000
"""Not the mesh's: what it serves on a socket must be open to others."""


def files() -> list[str]:
    """The example's files that a server needs; names of a ConfigMap's entries have no slashes."""
    return [str(file.relative_to(EXAMPLE)) for pattern in FILES for file in EXAMPLE.glob(pattern)]


def content() -> JSON:
    """The ConfigMap with the example's files."""
    return config_map(CONFIG, **{name.replace("/", "."): (EXAMPLE / name).read_text() for name in files()})


def runtime(manifest: str) -> JSON:
    """A runtime of the example, with the adapter image in place of its own."""
    found: JSON = yaml.safe_load((EXAMPLE / manifest).read_text())
    (container,) = found["spec"]["containers"]
    container["image"] = f"modelmesh/adapter:{importlib.metadata.version('modelmesh')}"
    container["command"] = ["python3", "/own/server.py"]
    container["resources"]["requests"]["cpu"] = "50m"
    container["securityContext"]["runAsUser"] = OTHER_USER
    container["env"].append({"name": "MODEL_LIBRARY", "value": "/own/models"})
    container["volumeMounts"] = [{"name": "own", "mountPath": "/own"}]
    items = [{"key": name.replace("/", "."), "path": name} for name in files()]
    found["spec"]["volumes"] = [{"name": "own", "configMap": {"name": CONFIG, "items": items}}]
    return found


@pytest.fixture
def runtimes(installed: Cluster) -> Iterator[Cluster]:
    """The cluster, with the runtimes and files that a case applies removed after it."""
    yield installed
    installed.delete("servingruntime", "own-server", "own-server-pull-less")
    installed.delete("configmap", CONFIG)


def test_a_server_that_speaks_the_spi_answers_behind_the_puller(
    runtimes: Cluster, models: Bucket, inference: Inference, name: str
) -> None:
    models.put(MODEL, (EXAMPLE / "models" / "linear.json").read_bytes())
    runtimes.apply(content(), runtime("runtime.yaml"), isvc(name, "linear", MODEL, runtime="own-server"))
    runtimes.wait_ready("isvc", name)
    assert list(inference.infer(name, [1, 2, 3], tensor="x").outputs[0].contents.fp32_contents) == [2.5]
    assert inference.rest_row(name, [1, 2, 3], "x").json()["outputs"][0]["data"] == [2.5]


def test_a_server_without_a_puller_answers_over_a_unix_socket(
    runtimes: Cluster, inference: Inference, name: str
) -> None:
    model = isvc(name, "linear", "linear.json", key=None, runtime="own-server-pull-less")
    runtimes.apply(content(), runtime("runtime-pull-less.yaml"), model)
    runtimes.wait_ready("isvc", name)
    assert list(inference.infer(name, [1, 2, 3], tensor="x").outputs[0].contents.fp32_contents) == [2.5]
    assert inference.rest_row(name, [1, 2, 3], "x").json()["outputs"][0]["data"] == [2.5]

"""The tutorial of docs/tutorial/cluster.md, word for word, from an empty cluster.

The steps are one walk, in the order of the page; the first that fails makes the later ones fail.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from fvt.cluster import CONTROLLER_PODS, Cluster
from fvt.install import MARK, clear, remove_namespace
from fvt.overlay import ROOT
from fvt.tutorial.page import cells, columns, commands
from fvt.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "example-sklearn-isvc"
STORAGE_MODEL = f"{NAME}__isvc-6b2eb0b8bf"
URI_MODEL = f"{NAME}__isvc-3642375d03"
"""Names of the concrete models: the original's for the same specs."""
COMMAND_SECONDS = 600
STEPS = [
    "scripts/install.sh",
    "kubectl get pods",
    "kubectl get servingruntimes",
    "  path: sklearn/mnist-svm.joblib",
    "  storageUri: s3://",
    "kubectl get isvc",
    "kubectl get pods",
    "kubectl get isvc",
    "kubectl describe isvc",
    "kubectl port-forward --address 0.0.0.0 service/modelmesh-serving 8033",
    "grpcurl",
    "kubectl port-forward --address 0.0.0.0 service/modelmesh-serving 8008",
    "curl",
    "scripts/delete.sh",
]
"""What each command of the page is known by."""
PAGE = commands()
(
    INSTALL,
    PODS,
    RUNTIMES,
    APPLY_STORAGE,
    APPLY_URI,
    FALSE,
    RUNTIME_PODS,
    TRUE,
    DESCRIBE,
    FORWARD_GRPC,
    ASK_GRPC,
    FORWARD_REST,
    ASK_REST,
    _,
) = PAGE


class Terminal:
    """A shell in the root of the repository, on a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def type(self, text: str) -> str:
        """Run commands; return what they print."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=ROOT,
            env=self.cluster.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )
        print(f"$ {text}\n{done.stdout}")
        assert done.returncode == 0, f"{text} ended with {done.returncode}:\n{done.stdout[-6000:]}"
        return done.stdout

    @contextmanager
    def another(self, text: str, until: str) -> Iterator[None]:
        """Run a command in a terminal of its own, from when it prints `until` to the end of the block."""
        process = subprocess.Popen(
            ["bash", "-c", text],
            cwd=ROOT,
            env=self.cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert until in first, f"{text} printed: {first}"
            yield
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=20)


@pytest.fixture(scope="module")
def terminal(cluster: Cluster, config: Path, pytestconfig: pytest.Config) -> Terminal:
    """A cluster without an installation, and the programs that the page names."""
    if pytestconfig.getoption("--installed"):
        pytest.skip("the tutorial begins with the installation, and --installed says it is there")
    for program in ("grpcurl", "curl"):
        assert shutil.which(program), f"{program} is missing, which the tutorial uses"
    clear(cluster, config)
    remove_namespace(cluster, cluster.namespace)
    return Terminal(cluster)


@pytest.fixture(scope="module")
def asked(terminal: Terminal) -> Iterator[Terminal]:
    """The cluster with both ports forwarded by the page's commands."""
    grpc, rest = FORWARD_GRPC.text, FORWARD_REST.text
    with terminal.another(grpc, "Forwarding from"), terminal.another(rest, "Forwarding from"):
        yield terminal


def has_columns(output: str, expected: str) -> list[dict[str, str]]:
    """Check that a table has the page's columns; return its rows."""
    lines = output.splitlines()
    assert columns(lines[0]) == columns(expected.splitlines()[0])
    return cells(output)


def ready(terminal: Terminal, model: str) -> None:
    """Wait until the model with this id is the one that is served."""
    status = terminal.cluster.wait_ready("isvc", NAME)
    assert status["url"] == f"grpc://modelmesh-serving.{terminal.cluster.namespace}:8033"
    assert model.startswith(NAME)


def test_the_page_has_the_tutorials_commands_in_order() -> None:
    assert len(PAGE) == len(STEPS)
    for command, mark in zip(PAGE, STEPS, strict=True):
        assert mark in command.text


def test_the_script_installs(terminal: Terminal, config: Path) -> None:
    assert "--namespace-scope-mode --quickstart" in INSTALL.text
    make, run = INSTALL.text.strip().splitlines()
    terminal.type(make)
    terminal.cluster.kubectl("label", "namespace", terminal.cluster.namespace, f"{MARK}=true")
    # The one addition: model servers that request 50m of CPU.
    output = terminal.type(f"{run} --install-config-path {config}")
    assert (
        INSTALL.output.strip()
        == output.strip().splitlines()[-1]
        == "Successfully installed ModelMesh Serving!"
    )


def test_controller_minio_and_etcd_run(terminal: Terminal) -> None:
    rows = has_columns(terminal.type(PODS.text), PODS.output)
    names = [re.match(r"etcd|minio|modelmesh-controller|$", row["NAME"])[0] for row in rows]  # type: ignore[index]
    assert sorted(names) == ["etcd", "minio", "modelmesh-controller"]
    assert {(row["READY"], row["STATUS"], row["RESTARTS"]) for row in rows} == {("1/1", "Running", "0")}


def test_the_four_runtimes_are_there(terminal: Terminal) -> None:
    rows = has_columns(terminal.type(RUNTIMES.text), RUNTIMES.output)
    expected = cells(RUNTIMES.output)
    shown = [(row["NAME"], row["DISABLED"], row["MODELTYPE"], row["CONTAINERS"]) for row in rows]
    assert shown == [(row["NAME"], row["DISABLED"], row["MODELTYPE"], row["CONTAINERS"]) for row in expected]


def test_the_model_is_not_ready_at_first(terminal: Terminal) -> None:
    assert terminal.type(APPLY_STORAGE.text).strip() == f"inferenceservice.serving.kserve.io/{NAME} created"

    def look() -> list[dict[str, str]]:
        rows = has_columns(terminal.type(FALSE.text), FALSE.output)
        assert [(row["NAME"], row["URL"], row["READY"]) for row in rows] == [(NAME, "", "False")]
        return rows

    wait(look, "READY to be False", 60)
    wait(
        lambda: "Waiting for runtime Pod to become available" in terminal.type(DESCRIBE.text),
        "the description to say what is waited for",
        60,
    )


def test_the_runtimes_pods_run(terminal: Terminal) -> None:
    def look() -> bool:
        rows = [row for row in cells(terminal.type(RUNTIME_PODS.text)) if "modelmesh-serving" in row["NAME"]]
        assert [row["NAME"].startswith("modelmesh-serving-mlserver-1.x-") for row in rows] == [True, True]
        assert {(row["READY"], row["STATUS"]) for row in rows} == {("3/3", "Running")}
        return True

    wait(look, "two pods of mlserver-1.x, 3/3 Running", 300)


def test_the_model_becomes_ready(terminal: Terminal) -> None:
    ready(terminal, STORAGE_MODEL)
    rows = has_columns(terminal.type(TRUE.text), TRUE.output)
    url = f"grpc://modelmesh-serving.{terminal.cluster.namespace}:8033"
    assert [(row["NAME"], row["URL"], row["READY"]) for row in rows] == [(NAME, url, "True")]


def test_the_description_is_the_pages(terminal: Terminal) -> None:
    text = terminal.type(DESCRIBE.text)
    shown = [" ".join(line.split()) for line in text.splitlines()]
    for line in DESCRIBE.output.splitlines():
        wanted = " ".join(line.split())
        if wanted in {"", "..."} or wanted.startswith(("Last Transition Time", "Total Copies")):
            continue
        assert wanted in shown
    copies = next(line for line in shown if line.startswith("Total Copies:"))
    assert copies in {"Total Copies: 1", "Total Copies: 2"}


def test_the_model_answers_by_grpc(asked: Terminal) -> None:
    answer = json.loads(asked.type(ASK_GRPC.text))
    expected = json.loads(ASK_GRPC.output)
    assert answer == expected
    assert answer["modelName"] == STORAGE_MODEL


def test_the_model_answers_by_rest(asked: Terminal) -> None:
    output = asked.type(ASK_REST.text)
    answer = json.loads(output[output.index('{"') :])
    expected = json.loads(ASK_REST.output)
    assert {key: answer[key] for key in ("model_name", "outputs")} == {
        key: expected[key] for key in ("model_name", "outputs")
    }


def test_the_same_model_by_uri_takes_over(asked: Terminal) -> None:
    assert asked.type(APPLY_URI.text).strip() == f"inferenceservice.serving.kserve.io/{NAME} configured"
    ready(asked, URI_MODEL)
    answer = json.loads(asked.type(ASK_GRPC.text))
    assert answer["modelName"] == URI_MODEL
    assert answer["outputs"][0]["contents"] == {"int64Contents": ["8"]}
    by_rest = asked.type(ASK_REST.text)
    assert json.loads(by_rest[by_rest.index('{"') :])["model_name"] == URI_MODEL


def test_the_controller_has_not_restarted(terminal: Terminal) -> None:
    (pod,) = terminal.cluster.items("pods", CONTROLLER_PODS)
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0

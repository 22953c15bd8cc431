"""The tutorial, done and checked: `make quickstart`.

Every step is the command that a user would type, run as it is, with its output. A step whose output is not
what the tutorial promises ends the quickstart with what was missing.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from local import cluster, comparison, tools
from local.errors import QuickstartFailedError
from local.home import NAMESPACE
from local.node import without_proxy
from local.progress import ConsoleProgress, step

if TYPE_CHECKING:
    from collections.abc import Callable

    from local.home import Home, Settings

NAME = "example-sklearn-isvc"
STORAGE_MODEL = f"{NAME}__isvc-6b2eb0b8bf"
URI_MODEL = f"{NAME}__isvc-3642375d03"
"""Concrete model names of the two manifests: the hashes of the original for the same specs."""

_ROOT = Path(__file__).parent.parent
_READY_SECONDS = 60.0
_WAITING = "Waiting for runtime Pod to become available"

EIGHT = [
    *(0.0, 0.0, 1.0, 11.0, 14.0, 15.0, 3.0, 0.0),
    *(0.0, 1.0, 13.0, 16.0, 12.0, 16.0, 8.0, 0.0),
    *(0.0, 8.0, 16.0, 4.0, 6.0, 16.0, 5.0, 0.0),
    *(0.0, 5.0, 15.0, 11.0, 13.0, 14.0, 0.0, 0.0),
    *(0.0, 0.0, 2.0, 12.0, 16.0, 13.0, 0.0, 0.0),
    *(0.0, 0.0, 0.0, 13.0, 16.0, 16.0, 6.0, 0.0),
    *(0.0, 0.0, 0.0, 16.0, 16.0, 16.0, 7.0, 0.0),
    *(0.0, 0.0, 0.0, 11.0, 13.0, 12.0, 1.0, 0.0),
]
"""The digit of the tutorial, 8 by 8 pixels of 0 to 16."""

_MANIFEST = """\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: example-sklearn-isvc
  annotations:
    serving.kserve.io/deploymentMode: ModelMesh
spec:
  predictor:
    model:
      modelFormat:
        name: sklearn
      storage:
        key: localMinIO
        path: sklearn/mnist-svm.joblib
"""
_URI_MANIFEST = """\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: example-sklearn-isvc
  annotations:
    serving.kserve.io/deploymentMode: ModelMesh
    serving.kserve.io/secretKey: localMinIO
spec:
  predictor:
    model:
      modelFormat:
        name: sklearn
      storageUri: s3://modelmesh-example-models/sklearn/mnist-svm.joblib
"""


@dataclass(frozen=True, slots=True)
class Options:
    """How to run the quickstart.

    Attributes:
        keep: leave the cluster running.
        digits: how many random digits the second part compares.
        seed: chooses them; None takes a new one.
    """

    keep: bool = False
    digits: int = 100
    seed: int | None = None


def run(home: Home, settings: Settings, options: Options) -> int:
    """Start a cluster, do the tutorial, compare random digits, and stop the cluster.

    Returns:
        0 when everything was seen. Errors of local mode pass through; the cluster is stopped before.
    """
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if shutil.which("curl") is None:
        raise QuickstartFailedError("curl is missing, which sends the REST request; apt-get install curl")
    console = Console(highlight=False)
    console.rule(f"Starting Modelmesh in {home.root}", align="left")
    process = cluster.start(home, settings, ConsoleProgress(console), lifeline=not options.keep)
    try:
        walk = Walk(home, settings, console)
        walk.tutorial()
        walk.compare(options)
    except BaseException:
        cluster.wait(process, stop=True)
        console.print(f"Logs are in {home.logs} and {home.supervisor_log}", soft_wrap=True)
        raise
    if options.keep:
        console.print(f"\nThe cluster keeps running: export KUBECONFIG={home.kubeconfig}", soft_wrap=True)
        console.print("Stop it with: modelmesh local down")
    else:
        with step(ConsoleProgress(console), "Stopping"):
            cluster.wait(process, stop=True)
    console.rule(f"All steps succeeded in {time.monotonic() - began:.0f} s", align="left")
    return 0


@dataclass
class Walk:
    """The steps, against a running cluster."""

    home: Home
    settings: Settings
    console: Console
    _environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        kubectl = tools.ensure(tools.KUBECTL, self.home.tools)
        if tools.locate(tools.GRPCURL, self.home.tools) is None:
            with step(ConsoleProgress(self.console), "Installing grpcurl"):
                tools.ensure(tools.GRPCURL, self.home.tools)
        grpcurl = tools.ensure(tools.GRPCURL, self.home.tools)
        path = os.pathsep.join((str(kubectl.parent), str(grpcurl.parent), os.environ.get("PATH", "")))
        self._environment = {
            **os.environ,
            **without_proxy(os.environ),
            "KUBECONFIG": str(self.home.kubeconfig),
            "PATH": path,
        }

    def tutorial(self) -> None:
        """Do the tutorial with both forms of its manifest."""
        self.console.rule("Deploy a model", align="left")
        self.show(f"export KUBECONFIG={self.home.kubeconfig}")
        runtimes = self.shell("kubectl get servingruntimes")
        self.require(
            runtimes, "NAME", "DISABLED", "MODELTYPE", "CONTAINERS", "AGE", "mlserver-1.x", "sklearn"
        )
        self.apply(_MANIFEST)
        self._waits_for_its_pod()
        self._turns_ready()
        self.require(self.shell("kubectl get pods"), "modelmesh-serving-mlserver-1.x-", "3/3", "Running")
        described = self.shell(f"kubectl describe isvc {NAME}")
        self.require(described, "Components:", "Grpc URL:", "Rest URL:", "Conditions:", "PredictorReady")
        self.require(described, "Model Status:", "Copies:", "Total Copies:", "Active Model State:", "Loaded")
        self.require(described, "Transition Status:", "UpToDate")

        self.console.rule("Ask it", align="left")
        self._ask(STORAGE_MODEL)

        self.console.rule("The same model by URI", align="left")
        self.apply(_URI_MANIFEST)
        self._turns_ready()
        self._ask(URI_MODEL)

    def compare(self, options: Options) -> None:
        """Send random digits by both protocols and compare with scikit-learn.

        Raises:
            QuickstartFailedError: an answer differs.
        """
        seed = secrets.randbelow(2**31) if options.seed is None else options.seed
        self.console.rule(f"{options.digits} random digits (seed {seed})", align="left")
        with step(ConsoleProgress(self.console), "Predicting them with scikit-learn directly"):
            digits, labels = comparison.expected(self.home, options.digits, seed)
        for protocol, ask in (("gRPC", comparison.ask_grpc), ("REST", comparison.ask_rest)):
            port = self.settings.grpc_port if protocol == "gRPC" else self.settings.rest_port
            with step(ConsoleProgress(self.console), f"Asking the served model by {protocol}"):
                answers = ask(port, NAME, digits)
            wrong = [index for index, label in enumerate(labels) if answers[index] != label]
            if wrong:
                first = wrong[0]
                raise QuickstartFailedError(
                    f"{len(wrong)} of {len(labels)} digits were answered differently by {protocol}; "
                    f"the first: {answers[first]} instead of {labels[first]} for {digits[first]}",
                )
            self.console.print(f"  all {len(labels)} answers by {protocol} equal scikit-learn's")

    def shell(self, command: str, *, stdin: str = "", show: bool = True) -> str:
        """Run a shell command as a user would; return its output.

        Raises:
            QuickstartFailedError: it ended with another status than 0.
        """
        if show:
            self.show(f"{command} -f - <<EOF\n{stdin}EOF" if stdin else command)
        done = subprocess.run(  # noqa: S602 -- the commands are ours, and the user sees them
            f"{command} -f -" if stdin else command,
            shell=True,
            input=stdin,
            capture_output=True,
            text=True,
            cwd=_ROOT,
            env=self._environment,
            check=False,
        )
        output = done.stdout + done.stderr
        if show:
            self.console.print(output.rstrip(), markup=False, soft_wrap=True)
        if done.returncode:
            raise QuickstartFailedError(f"`{command}` ended with status {done.returncode}: {output.strip()}")
        return output

    def apply(self, manifest: str) -> None:
        """Apply a manifest and show it."""
        self.require(
            self.shell("kubectl apply", stdin=manifest), f"inferenceservice.serving.kserve.io/{NAME}"
        )

    def show(self, command: str) -> None:
        """Print a command with a prompt."""
        self.console.print(f"\n$ {command}", style="bold", markup=False, soft_wrap=True)

    def require(self, output: str, *parts: str) -> None:
        """Check that a step showed what it must.

        Raises:
            QuickstartFailedError: names what is missing.
        """
        for part in parts:
            if part not in output:
                raise QuickstartFailedError(f"expected {part!r} in the output of the last command:\n{output}")

    def _waits_for_its_pod(self) -> None:
        """See READY False and why, while the runtime's pod starts."""
        seen = ""

        def waiting() -> bool:
            nonlocal seen
            seen = self.shell(f"kubectl describe isvc {NAME}", show=False)
            return _WAITING in seen

        self._until(waiting, f"{_WAITING!r} in the description of {NAME}", lambda: seen)
        self.require(self.shell("kubectl get isvc"), "False")
        self.show(f"kubectl describe isvc {NAME}")
        self.console.print(seen.rstrip(), markup=False, soft_wrap=True)

    def _turns_ready(self) -> None:
        command = (
            f"kubectl get isvc {NAME} -o jsonpath='"
            "{.metadata.generation} {.status.observedGeneration} {.status.modelStatus.transitionStatus} "
            '{.status.conditions[?(@.type=="Ready")].status}\''
        )

        def ready() -> bool:
            written, seen, *state = self.shell(command, show=False).split()
            return written == seen and state == ["UpToDate", "True"]

        with step(ConsoleProgress(self.console), f"Waiting for {NAME} to become ready"):
            self._until(
                ready,
                f"{NAME} to be ready",
                lambda: self.shell(f"kubectl describe isvc {NAME}", show=False),
            )
        self.require(
            self.shell("kubectl get isvc"), NAME, f"grpc://modelmesh-serving.{NAMESPACE}:8033", "True"
        )

    def _ask(self, model: str) -> None:
        self.require(self._grpc(), model, '"INT64"', '"int64Contents"', '"8"')
        tensor = f'{{"name": "predict", "shape": [1, 64], "datatype": "FP32", "data": {EIGHT}}}'
        body = shlex.quote(f'{{"inputs": [{tensor}]}}')
        url = f"http://localhost:{self.settings.rest_port}/v2/models/{NAME}/infer"
        answer = self.shell(f"curl --silent --show-error -X POST {url} -d {body}")
        self.require(answer.replace(" ", ""), f'"model_name":"{model}"', '"data":[8]')

    def _grpc(self, *, show: bool = True) -> str:
        inputs = (
            f'{{"model_name": "{NAME}", "inputs": [{{"name": "predict", "shape": [1, 64], '
            f'"datatype": "FP32", "contents": {{"fp32_contents": {EIGHT}}}}}]}}'
        )
        return self.shell(
            "grpcurl -plaintext -proto fvt/proto/kfs_inference_v2.proto "
            f"-d {shlex.quote(inputs)} localhost:{self.settings.grpc_port} "
            "inference.GRPCInferenceService.ModelInfer",
            show=show,
        )

    def _until(self, done: Callable[[], bool], what: str, report: Callable[[], str]) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not done():
            if time.monotonic() > deadline:
                raise QuickstartFailedError(
                    f"waited {_READY_SECONDS:.0f} s for {what}; last seen:\n{report()}"
                )
            time.sleep(0.1)

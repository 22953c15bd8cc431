"""Each flavour of a custom runtime, deployed by its example's own files and asked for an inference."""

from __future__ import annotations

import base64
import os
import signal
from typing import TYPE_CHECKING

import grpc
import httpx

from api.proto import kfs_inference_v2_pb2 as v2
from api.proto import kfs_inference_v2_pb2_grpc as v2_grpc
from tests.e2e.conftest import run, until
from tests.runtimes.conftest import EXAMPLES, SCAFFOLDED

if TYPE_CHECKING:
    from pathlib import Path

    from api.meta import JSON
    from tests.e2e.conftest import Machine
    from tests.runtimes.conftest import Cluster


def deploy(machine: Machine, manifest: Path, **replaced: str) -> str:
    """Applies the manifest of an InferenceService, with words replaced, and waits until it is ready."""
    text = manifest.read_text()
    for old, new in replaced.items():
        text = text.replace(old.replace("_", "-"), new)
    machine.apply(text)
    name = text.split("name: ", 1)[1].split("\n", 1)[0]
    machine.wait_ready(name)
    return name


def ask_rest(machine: Machine, model: str, request: Path) -> list[object]:
    url = f"http://127.0.0.1:{machine.rest_port}/v2/models/{model}/infer"
    answer = httpx.post(url, content=request.read_bytes(), timeout=60)
    assert answer.status_code == 200, answer.text
    data: list[object] = answer.json()["outputs"][0]["data"]
    return data


def ask_linear(machine: Machine, model: str, values: list[float]) -> list[float]:
    request = v2.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, len(values)])
    tensor.contents.fp32_contents.extend(values)
    with grpc.insecure_channel(f"127.0.0.1:{machine.grpc_port}") as channel:
        answer = v2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=60)
    return list(answer.outputs[0].contents.fp32_contents)


def pod_of(machine: Machine, runtime: str) -> JSON:
    pods = machine.get("pods", "-l", f"name=modelmesh-serving-{runtime}")["items"]
    (pod,) = (pod for pod in pods if not pod["metadata"].get("deletionTimestamp"))
    return pod


def containers_of(machine: Machine, runtime: str) -> list[str]:
    return [container["name"] for container in pod_of(machine, runtime)["spec"]["containers"]]


def test_a_class_of_ones_own_in_mlserver_answers(cluster: Cluster) -> None:
    example = EXAMPLES / "mlserver-class"
    name = deploy(cluster.machine, example / "isvc.yaml")
    assert containers_of(cluster.machine, "topics") == ["mlserver", "mlserver-adapter", "mm"]
    answers = ask_rest(cluster.machine, name, example / "request.json")
    assert [base64.b64decode(str(answer)) for answer in answers] == [b"sport", b"music"]


def test_a_server_behind_an_adapter_of_ones_own_answers_in_its_own_protocol(cluster: Cluster) -> None:
    name = deploy(cluster.machine, EXAMPLES / "own-adapter" / "isvc.yaml")
    assert containers_of(cluster.machine, "dictionary") == [
        "dictionary",
        "dictionary-adapter",
        "puller",
        "mm",
    ]
    with grpc.insecure_channel(f"127.0.0.1:{cluster.machine.grpc_port}") as channel:
        define = channel.unary_unary("/dictionary.Dictionary/Define")
        answer = define(b"\x0a\x03cat", metadata=(("mm-vmodel-id", name),), timeout=60)
    assert answer.endswith(b"a small animal that purrs")


def test_a_server_that_speaks_the_spi_answers_behind_the_puller(cluster: Cluster) -> None:
    example = EXAMPLES / "own-server"
    name = deploy(cluster.machine, example / "isvc.yaml")
    assert containers_of(cluster.machine, "own-server") == ["own-server", "puller", "mm"]
    assert ask_linear(cluster.machine, name, [1, 2, 3]) == [2.5]
    assert ask_rest(cluster.machine, name, example / "request.json") == [2.5]


def test_a_server_without_a_puller_answers_over_a_unix_socket(cluster: Cluster) -> None:
    example = EXAMPLES / "own-server"
    name = deploy(cluster.machine, example / "isvc-pull-less.yaml")
    assert containers_of(cluster.machine, "own-server-pull-less") == ["own-server", "mm"]
    assert ask_linear(cluster.machine, name, [1, 2, 3]) == [2.5]
    assert ask_rest(cluster.machine, name, example / "request.json") == [2.5]


def test_a_server_on_a_unix_socket_answers_behind_the_puller(cluster: Cluster) -> None:
    name = deploy(
        cluster.machine,
        EXAMPLES / "own-server" / "isvc.yaml",
        own_server_model="socket-model",
        **{"runtime: own-server": "runtime: own-server-sockets"},
    )
    assert containers_of(cluster.machine, "own-server-sockets") == ["own-server", "puller", "mm"]
    assert ask_linear(cluster.machine, name, [0, 1, 0]) == [0]


def test_the_scaffolded_runtime_answers(cluster: Cluster) -> None:
    name = deploy(cluster.machine, cluster.scaffolded / "isvc.yaml")
    assert name == f"{SCAFFOLDED}-model"
    assert ask_rest(cluster.machine, name, cluster.scaffolded / "request.json") == [2.5]


def test_the_servers_own_words_reach_the_models_owner(cluster: Cluster) -> None:
    broken = EXAMPLES / "own-server" / "request.json"
    cluster.machine.local("put", str(broken), "own-server/broken.json")
    manifest = (EXAMPLES / "own-server" / "isvc.yaml").read_text()
    cluster.machine.apply(
        manifest.replace("own-server-model", "broken-model").replace("linear.json", "broken.json")
    )
    assert "this is no linear model" in cluster.machine.wait_failed("broken-model")["message"]


def test_models_are_put_under_the_folders_name_and_mistakes_are_told(
    cluster: Cluster, tmp_path: Path
) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    machine = cluster.machine
    empty = machine.local("put", str(folder), check=False)
    assert (empty.returncode, empty.stdout) == (1, f"error: {folder} has no files\n")
    (folder / "model.json").write_text("{}")
    outside = machine.local("put", str(folder), "../shop", check=False)
    assert outside.returncode == 1
    assert outside.stdout.startswith("error: storing ../shop/model.json in bucket ")
    stored = run(*machine.command("put", "."), cwd=folder, env=machine.environment)
    assert stored.stdout == "stored shop/model.json\n"


def kill(machine: Machine, runtime: str, container: str) -> None:
    statuses = pod_of(machine, runtime)["status"]["containerStatuses"]
    (found,) = (status for status in statuses if status["name"] == container)
    os.kill(int(found["containerID"].removeprefix("process://")), signal.SIGKILL)


def test_a_server_that_was_killed_gets_its_models_again(cluster: Cluster) -> None:
    example = EXAMPLES / "own-server"
    name = deploy(cluster.machine, example / "isvc-pull-less.yaml")
    kill(cluster.machine, "own-server-pull-less", "own-server")

    def answers() -> bool:
        url = f"http://127.0.0.1:{cluster.machine.rest_port}/v2/models/{name}/infer"
        answer = httpx.post(url, content=(example / "request.json").read_bytes(), timeout=60)
        return answer.status_code == 200 and answer.json()["outputs"][0]["data"] == [2.5]

    until(answers, "the model to be loaded again")


def test_a_server_that_was_killed_behind_its_adapter_gets_its_models_again(cluster: Cluster) -> None:
    name = deploy(cluster.machine, EXAMPLES / "own-adapter" / "isvc.yaml")
    kill(cluster.machine, "dictionary", "dictionary")

    def answers() -> bool:
        with grpc.insecure_channel(f"127.0.0.1:{cluster.machine.grpc_port}") as channel:
            define = channel.unary_unary("/dictionary.Dictionary/Define")
            try:
                return b"purrs" in define(b"\x0a\x03cat", metadata=(("mm-vmodel-id", name),), timeout=60)
            except grpc.RpcError:
                return False

    until(answers, "the dictionary to be opened again")

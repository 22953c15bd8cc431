import base64
import json
import os
import signal

import aiohttp
import psutil
import pytest

from api.core import CONFIG_MAP, EVENT, POD, SECRET
from local.containers import PORTS_ANNOTATION
from local.workloads import is_ready
from tests.local.conftest import NAMESPACE, FakeCluster, until

READINESS = {"httpGet": {"path": "/ready", "port": 8080}}


async def ready(cluster: FakeCluster, name: str) -> bool:
    pod = await cluster.pod(name)
    return pod is not None and is_ready(pod)


async def test_a_pod_runs_on_a_port_of_its_own_and_shows_it(cluster: FakeCluster) -> None:
    await cluster.create_pod("web", {"image": "fake/server", "env": [{"name": "GREETING", "value": "hello"}]})
    await cluster.started("web")
    pod = await cluster.pod("web")
    assert pod is not None
    port = json.loads(pod.metadata.annotations[PORTS_ANNOTATION])["8080"]
    assert port != 8080
    await until(lambda: _async("listening" in cluster.log("web")), "the server")
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/") as answer:
        assert await answer.text() == "hello"
    assert pod.status.pod_ip == "127.0.0.1"
    assert pod.status.phase == "Running"


async def _async(value: object) -> object:
    return value


async def test_a_pod_is_ready_when_its_probe_says_so(cluster: FakeCluster) -> None:
    await cluster.create_pod(
        "web", {"image": "fake/server", "readinessProbe": READINESS}, {"image": "fake/sleeper"}
    )
    await cluster.started("web")
    assert not await ready(cluster, "web")
    pod = await cluster.pod("web")
    assert pod is not None
    (cluster.home.pods / pod.metadata.uid[:8] / "work" / "c0" / "ready").touch()
    await until(lambda: ready(cluster, "web"), "readiness")


async def test_a_killed_container_is_started_again_at_once(cluster: FakeCluster) -> None:
    await cluster.create_pod("one", {"image": "fake/sleeper"})
    first = await cluster.started("one")
    os.kill(first, signal.SIGKILL)

    async def restarted() -> bool:
        status = await cluster.container("one")
        return status.get("restartCount") == 1 and "running" in status["state"]

    await until(restarted, "the restart")
    status = await cluster.container("one")
    assert status["lastState"]["terminated"]["exitCode"] == 137
    assert await cluster.pid("one") != first


async def test_a_container_that_keeps_failing_waits_longer_and_says_why(cluster: FakeCluster) -> None:
    await cluster.create_pod("bad", {"image": "fake/crasher"})

    async def waits() -> bool:
        state = (await cluster.container("bad")).get("state", {})
        return bool(state.get("waiting", {}).get("reason") == "CrashLoopBackOff")

    await until(waits, "CrashLoopBackOff")
    status = await cluster.container("bad")
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert status["restartCount"] >= 1
    assert cluster.log("bad") == "about to fail\n"


@pytest.mark.parametrize(
    ("policy", "image", "phase"),
    [("Never", "fake/crasher", "Failed"), ("OnFailure", "fake/sleeper", "Running")],
)
async def test_the_restart_policy_is_kept(cluster: FakeCluster, policy: str, image: str, phase: str) -> None:
    await cluster.create_pod("job", {"image": image}, restartPolicy=policy)

    async def reached() -> bool:
        pod = await cluster.pod("job")
        return pod is not None and pod.status.phase == phase

    await until(reached, phase)
    assert (await cluster.container("job"))["restartCount"] == 0


async def test_an_image_without_profile_shows_as_status_and_event(cluster: FakeCluster) -> None:
    await cluster.create_pod("odd", {"image": "example/unknown:1"})

    async def refused() -> bool:
        return "waiting" in (await cluster.container("odd")).get("state", {}) and bool(await events())

    async def events() -> list[str]:
        page = await cluster.client.list(EVENT, NAMESPACE)
        return [event["message"] for event in page.items if event["reason"] == "NoLocalProfile"]

    await until(refused, "an event")
    waiting = (await cluster.container("odd"))["state"]["waiting"]
    assert waiting["reason"] == "NoLocalProfile"
    assert "'example/unknown:1' has no local profile" in waiting["message"]
    assert (await events())[0] == waiting["message"]


async def test_a_pod_waits_for_its_secret_and_sees_its_changes(cluster: FakeCluster) -> None:
    volumes = [{"name": "keys", "secret": {"secretName": "keys"}}]
    await cluster.create_pod(
        "web",
        {"image": "fake/sleeper", "volumeMounts": [{"name": "keys", "mountPath": "/keys"}]},
        volumes=volumes,
    )

    async def waits() -> bool:
        state = (await cluster.container("web")).get("state", {})
        return "Secret 'keys'" in state.get("waiting", {}).get("message", "")

    await until(waits, "the missing Secret to be named")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": NAMESPACE}}
    await cluster.client.create(SECRET, secret | {"stringData": {"a": "1"}})
    await cluster.started("web")
    pod = await cluster.pod("web")
    assert pod is not None
    file = cluster.home.pods / pod.metadata.uid[:8] / "volumes" / "keys" / "a"
    assert file.read_text() == "1"
    changed = {"data": {"a": base64.b64encode(b"2").decode()}}
    await cluster.client.patch(SECRET, "keys", NAMESPACE, changed)
    await until(lambda: _async(file.read_text() == "2"), "the new content")


async def test_a_config_map_brings_text_and_binary_files(cluster: FakeCluster) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": NAMESPACE},
        "data": {"text": "t"},
        "binaryData": {"blob": base64.b64encode(b"\x00\x01").decode()},
    }
    await cluster.client.create(CONFIG_MAP, config)
    await cluster.create_pod(
        "web", {"image": "fake/sleeper"}, volumes=[{"name": "v", "configMap": {"name": "c"}}]
    )
    await cluster.started("web")
    pod = await cluster.pod("web")
    assert pod is not None
    folder = cluster.home.pods / pod.metadata.uid[:8] / "volumes" / "v"
    assert (folder / "text").read_text() == "t"
    assert (folder / "blob").read_bytes() == b"\x00\x01"


async def test_a_deleted_pod_goes_when_its_processes_are_gone(cluster: FakeCluster) -> None:
    await cluster.create_pod("stubborn", {"image": "fake/stubborn"}, terminationGracePeriodSeconds=1)
    pid = await cluster.started("stubborn")
    await until(lambda: _async("up" in cluster.log("stubborn")), "the process")
    await cluster.client.delete(POD, "stubborn", NAMESPACE)
    pod = await cluster.pod("stubborn")
    assert pod is not None
    assert pod.metadata.deletion_timestamp
    assert psutil.pid_exists(pid)

    async def gone() -> bool:
        return await cluster.pod("stubborn") is None

    await until(gone, "the pod to go")
    assert not psutil.pid_exists(pid)
    assert not (cluster.home.pods / pod.metadata.uid[:8]).exists()


async def test_a_pod_of_the_same_name_is_a_new_pod(cluster: FakeCluster) -> None:
    await cluster.create_pod("one", {"image": "fake/sleeper"})
    first = await cluster.started("one")
    await cluster.client.delete(POD, "one", NAMESPACE, grace_seconds=0)
    await cluster.create_pod("one", {"image": "fake/sleeper"})

    async def replaced() -> bool:
        return await cluster.pid("one") not in {0, first}

    await until(replaced, "the new pod")
    assert not psutil.pid_exists(first)

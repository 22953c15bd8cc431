import os
import re
import signal

from api.core import DEPLOYMENT, ENDPOINTS, POD, SERVICE, Deployment
from api.meta import JSON
from controller.runtime.errors import NotFound
from local.workloads import is_ready
from tests.local.conftest import NAMESPACE, FakeCluster, until


async def ready_pods(cluster: FakeCluster) -> set[str]:
    return {pod.name for pod in await cluster.pods() if is_ready(pod)}


async def settled(cluster: FakeCluster, replicas: int) -> bool:
    raw = await cluster.client.get(DEPLOYMENT, "web", NAMESPACE)
    status = Deployment.parse(raw).status
    counts = (status.replicas, status.ready_replicas, status.updated_replicas)
    return counts == (replicas,) * 3 and len(await cluster.pods()) == replicas


async def scale(cluster: FakeCluster, replicas: int) -> None:
    await cluster.client.patch(DEPLOYMENT, "web", NAMESPACE, {"spec": {"replicas": replicas}})


async def test_a_deployment_makes_pods_with_kubernetes_names_and_shows_its_state(
    cluster: FakeCluster,
) -> None:
    await cluster.create_deployment("web", 2, "fake/sleeper")
    await until(lambda: settled(cluster, 2), "two pods")
    for name in await ready_pods(cluster):
        assert re.fullmatch(r"web-[a-z0-9]{10}-[a-z0-9]{5}", name)
    status = Deployment.parse(await cluster.client.get(DEPLOYMENT, "web", NAMESPACE)).status
    conditions = {condition.type: condition.status for condition in status.conditions}
    assert conditions == {"Available": "True", "Progressing": "True"}


async def test_a_deployment_scales_up_down_and_to_nothing(cluster: FakeCluster) -> None:
    await cluster.create_deployment("web", 1, "fake/sleeper")
    await until(lambda: settled(cluster, 1), "one pod")
    await scale(cluster, 3)
    await until(lambda: settled(cluster, 3), "three pods")
    await scale(cluster, 0)
    await until(lambda: settled(cluster, 0), "no pod")


async def test_a_deleted_pod_is_replaced(cluster: FakeCluster) -> None:
    await cluster.create_deployment("web", 1, "fake/sleeper")
    await until(lambda: settled(cluster, 1), "one pod")
    before = await ready_pods(cluster)
    await cluster.client.delete(POD, next(iter(before)), NAMESPACE)

    async def replaced() -> bool:
        now = await ready_pods(cluster)
        return len(now) == 1 and now != before

    await until(replaced, "another pod")


async def test_a_new_template_rolls_without_losing_a_ready_pod(cluster: FakeCluster) -> None:
    await cluster.create_deployment("web", 2, "fake/sleeper", maxSurge=1, maxUnavailable=0)
    await until(lambda: settled(cluster, 2), "two pods")
    before = await ready_pods(cluster)
    container = {"name": "c0", "image": "fake/stubborn"}
    change = {"spec": {"template": {"spec": {"containers": [container], "terminationGracePeriodSeconds": 1}}}}
    await cluster.client.patch(DEPLOYMENT, "web", NAMESPACE, change)

    async def rolled() -> bool:
        ready = await ready_pods(cluster)
        assert len(ready) >= 2
        return not ready & before and await settled(cluster, 2)

    await until(rolled, "the new pods")


async def test_deleting_a_deployment_deletes_its_pods(cluster: FakeCluster) -> None:
    await cluster.create_deployment("web", 2, "fake/sleeper")
    await until(lambda: settled(cluster, 2), "two pods")
    await cluster.client.delete(DEPLOYMENT, "web", NAMESPACE)

    async def gone() -> bool:
        return not (await cluster.client.list(POD, NAMESPACE)).items

    await until(gone, "the pods to go")


async def test_foreground_deletion_keeps_the_owner_until_its_pods_are_gone(cluster: FakeCluster) -> None:
    await cluster.create_deployment("web", 1, "fake/sleeper")
    await until(lambda: settled(cluster, 1), "one pod")
    await cluster.client.delete(DEPLOYMENT, "web", NAMESPACE, propagation="Foreground")

    async def gone() -> bool:
        try:
            await cluster.client.get(DEPLOYMENT, "web", NAMESPACE)
        except NotFound:
            return True
        return False

    await until(gone, "the Deployment to go")
    assert not (await cluster.client.list(POD, NAMESPACE)).items


async def test_orphaned_pods_stay(cluster: FakeCluster) -> None:
    await cluster.create_deployment("web", 1, "fake/sleeper")
    await until(lambda: settled(cluster, 1), "one pod")
    await cluster.client.delete(DEPLOYMENT, "web", NAMESPACE, propagation="Orphan")

    async def freed() -> bool:
        return all(not pod.metadata.owner_references for pod in await cluster.pods())

    await until(freed, "the pod to be freed")
    assert len(await ready_pods(cluster)) == 1


async def test_endpoints_list_each_ready_pod_with_its_own_port(cluster: FakeCluster) -> None:
    ports = [{"name": "http", "containerPort": 8080}]
    for name in ("a", "b"):
        await cluster.create_pod(name, {"image": "fake/server", "ports": ports})
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {"selector": {"app": "fake"}, "ports": [{"name": "web", "port": 80, "targetPort": "http"}]},
    }
    await cluster.client.create(SERVICE, service)

    async def subsets() -> list[JSON]:
        try:
            return (await cluster.client.get(ENDPOINTS, "web", NAMESPACE)).get("subsets") or []
        except NotFound:
            return []

    async def both() -> bool:
        return len(await subsets()) == 2

    await until(both, "two subsets")
    found = {item["addresses"][0]["targetRef"]["name"]: item["ports"][0] for item in await subsets()}
    assert set(found) == {"a", "b"}
    assert found["a"]["port"] != found["b"]["port"]
    assert {port["name"] for port in found.values()} == {"web"}

    os.kill(await cluster.pid("a"), signal.SIGSTOP)  # still there, so still listed
    await cluster.client.delete(POD, "b", NAMESPACE)

    async def one() -> bool:
        return len(await subsets()) == 1

    await until(one, "the deleted pod to leave")
    os.kill(await cluster.pid("a"), signal.SIGCONT)

"""Controllers and their manager on the API server in memory."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import REGISTRY

from api.core import CONFIG_MAP, DEPLOYMENT, NAMESPACE, SECRET, ConfigMap, Deployment, Namespace, Secret
from controller.runtime import Controller, Manager, Request, Result, Scope
from controller.runtime.backoff import RateLimiter
from controller.runtime.errors import Conflict
from controller.runtime.predicate import any_of, generation_changed, labels_changed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from controller.runtime.apiserver import MemoryClient


class Recorder:
    """Remembers requests; each is answered by `script(request)`, if there is one."""

    def __init__(self, script: Callable[[Request], Awaitable[Result]] | None = None) -> None:
        self.requests: list[Request] = []
        self._script = script

    async def reconcile(self, request: Request) -> Result:
        self.requests.append(request)
        return await self._script(request) if self._script else Result()


def obj(name: str, namespace: str = "ns", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace} | metadata}


def owned_by(owner: dict[str, Any], *, controller: bool = True) -> list[dict[str, Any]]:
    reference = {key: owner["metadata"][key] for key in ("name", "uid")}
    return [reference | {"apiVersion": "v1", "kind": owner["kind"], "controller": controller}]


@asynccontextmanager
async def running(manager: Manager) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(manager.run())
    ready = asyncio.create_task(manager.wait_ready())
    async with asyncio.timeout(10):
        await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    assert ready.done()
    yield task
    manager.stop()
    async with asyncio.timeout(10):
        await asyncio.wait([task])


def value_of(metric: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(metric, labels) or 0.0


async def test_what_is_there_and_what_comes_is_reconciled(client: MemoryClient, eventually: Any) -> None:
    await client.create(CONFIG_MAP, obj("before"))
    manager, recorder = Manager(client), Recorder()
    Controller("c", recorder).watches(ConfigMap).register(manager)
    async with running(manager):
        await eventually(lambda: recorder.requests == [Request("ns", "before")])
        await client.create(CONFIG_MAP, obj("after"))
        await eventually(lambda: recorder.requests[1:] == [Request("ns", "after")])
        await client.delete(CONFIG_MAP, "after", "ns")
        await eventually(lambda: recorder.requests[2:] == [Request("ns", "after")])


async def test_nothing_is_reconciled_before_every_cache_is_whole(client: MemoryClient) -> None:
    for n in range(20):
        await client.create(CONFIG_MAP, obj(f"c{n}"))
        await client.create(SECRET, obj(f"s{n}"))
    manager = Manager(client)
    secrets = manager.cache.lister(Secret)
    seen: list[int] = []
    done = asyncio.Event()

    async def count(_request: Request) -> Result:
        seen.append(len(secrets.list()))
        if len(seen) == 20:
            done.set()
        return Result()

    Controller("c", Recorder(count)).watches(ConfigMap).register(manager)
    async with running(manager), asyncio.timeout(10):
        await done.wait()
    assert seen == [20] * 20


@pytest.mark.parametrize("controlling", [True, False])
async def test_a_change_of_an_owned_object_reconciles_its_controlling_owner(
    client: MemoryClient, eventually: Any, *, controlling: bool
) -> None:
    owner = await client.create(CONFIG_MAP, obj("owner"))
    manager, recorder = Manager(client), Recorder()
    (
        Controller("c", recorder)
        .watches(ConfigMap, predicate=lambda _old, _new: False)
        .owns(Secret)
        .watches(Secret, enqueue=lambda secret: [Request("direct", secret.name)])
        .register(manager)
    )
    async with running(manager):
        references = owned_by(owner, controller=controlling)
        await client.create(SECRET, obj("owned", ownerReferences=references))
        await eventually(lambda: Request("direct", "owned") in recorder.requests)
        assert (Request("ns", "owner") in recorder.requests) is controlling


async def test_a_cluster_scoped_owner_is_requested_without_namespace(
    client: MemoryClient, eventually: Any
) -> None:
    owner = await client.get(NAMESPACE, "ns")
    manager, recorder = Manager(client), Recorder()
    (
        Controller("c", recorder)
        .watches(Namespace, predicate=lambda _old, _new: False)
        .owns(Secret)
        .register(manager)
    )
    async with running(manager):
        await client.create(SECRET, obj("owned", ownerReferences=owned_by(owner)))
        await eventually(lambda: recorder.requests == [Request("", "ns")])


async def test_an_owner_of_another_group_is_not_mistaken_for_ours(
    client: MemoryClient, eventually: Any
) -> None:
    owner = await client.create(CONFIG_MAP, obj("owner"))
    foreign = owned_by(owner)[0] | {"apiVersion": "example.com/v1", "name": "foreign"}
    manager, recorder = Manager(client), Recorder()
    (
        Controller("c", recorder)
        .watches(ConfigMap, predicate=lambda _old, _new: False)
        .owns(Secret)
        .register(manager)
    )
    async with running(manager):
        await client.create(SECRET, obj("a", ownerReferences=[foreign]))
        await client.create(SECRET, obj("b", ownerReferences=owned_by(owner)))
        await eventually(lambda: recorder.requests == [Request("ns", "owner")])


async def test_a_change_of_mapping_reconciles_both_sides(client: MemoryClient, eventually: Any) -> None:
    await client.create(CONFIG_MAP, obj("a", labels={"of": "red"}))
    manager, recorder = Manager(client), Recorder()
    Controller("c", recorder).watches(
        ConfigMap, enqueue=lambda config_map: [Request("", config_map.metadata.labels["of"])]
    ).register(manager)
    async with running(manager):
        await eventually(lambda: recorder.requests == [Request("", "red")])
        await client.patch(CONFIG_MAP, "a", "ns", {"metadata": {"labels": {"of": "blue"}}})
        await eventually(lambda: sorted(recorder.requests[1:]) == [Request("", "blue"), Request("", "red")])


async def test_a_predicate_keeps_out_what_does_not_matter(client: MemoryClient, eventually: Any) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    await client.create(DEPLOYMENT, obj("d") | {"spec": spec})
    manager, recorder = Manager(client), Recorder()
    changed = any_of(generation_changed, labels_changed)
    Controller("c", recorder).watches(Deployment, predicate=changed).register(manager)
    versions = manager.cache.lister(Deployment)
    async with running(manager):
        await eventually(lambda: len(recorder.requests) == 1)
        note = {"metadata": {"annotations": {"note": "x"}}}
        written = await client.patch(DEPLOYMENT, "d", "ns", note)
        version = written["metadata"]["resourceVersion"]
        await eventually(
            lambda: (held := versions.get("d", "ns")) and held.metadata.resource_version == version
        )
        assert len(recorder.requests) == 1
        await client.patch(DEPLOYMENT, "d", "ns", {"metadata": {"labels": {"x": "y"}}})
        await eventually(lambda: len(recorder.requests) == 2)
        await client.patch(DEPLOYMENT, "d", "ns", {"spec": {"replicas": 3}})
        await eventually(lambda: len(recorder.requests) == 3)


async def test_a_scope_watches_less(client: MemoryClient, eventually: Any) -> None:
    for namespace in ("ns", "other"):
        await client.create(CONFIG_MAP, obj("a", namespace))
    manager, recorder = Manager(client), Recorder()
    Controller("c", recorder).watches(ConfigMap, scope=Scope(namespaces=("other",))).register(manager)
    async with running(manager):
        await eventually(lambda: recorder.requests == [Request("other", "a")])


async def test_requests_come_from_channels_too(client: MemoryClient, eventually: Any) -> None:
    channel: asyncio.Queue[Request] = asyncio.Queue()
    manager, recorder = Manager(client), Recorder()
    Controller("c", recorder).watches_channel(channel).register(manager)
    async with running(manager):
        channel.put_nowait(Request("ns", "from-etcd"))
        await eventually(lambda: recorder.requests == [Request("ns", "from-etcd")])


async def test_a_failing_object_is_tried_again_and_stops_no_other(
    client: MemoryClient, eventually: Any
) -> None:
    failures = iter([RuntimeError("boom"), Conflict("changed"), None])
    labels = {"controller": "failing"}
    before = {
        result: value_of("controller_runtime_reconcile_total", result=result, **labels)
        for result in ("error", "requeue", "success")
    }

    async def script(request: Request) -> Result:
        if request.name == "bad" and (error := next(failures)):
            raise error
        return Result()

    await client.create(CONFIG_MAP, obj("bad"))
    await client.create(CONFIG_MAP, obj("good"))
    manager, recorder = Manager(client), Recorder(script)
    Controller("failing", recorder).watches(ConfigMap).register(manager)
    async with running(manager):
        await eventually(lambda: recorder.requests.count(Request("ns", "bad")) == 3)
        assert recorder.requests.count(Request("ns", "good")) == 1
    for result, times in {"error": 1, "requeue": 1, "success": 2}.items():
        now = value_of("controller_runtime_reconcile_total", result=result, **labels)
        assert now - before[result] == times, result


async def test_a_result_asks_for_a_later_reconcile(client: MemoryClient, clock: Any, eventually: Any) -> None:
    async def later(_request: Request) -> Result:
        return Result(requeue_after=60)

    await client.create(CONFIG_MAP, obj("a"))
    manager, recorder = Manager(client), Recorder(later)
    limiter = RateLimiter[Request](clock.time)
    Controller("c", recorder, clock=clock, limiter=limiter).watches(ConfigMap).register(manager)
    async with running(manager):
        await eventually(lambda: len(recorder.requests) == 1)
        clock.advance(59)
        await asyncio.sleep(0)
        assert len(recorder.requests) == 1
        clock.advance(1)
        await eventually(lambda: len(recorder.requests) == 2)


async def test_objects_are_reconciled_side_by_side_but_each_by_one_worker(
    client: MemoryClient, eventually: Any
) -> None:
    active: list[Request] = []
    most: dict[str, int] = {"all": 0, "one": 0}
    release = asyncio.Event()

    async def script(request: Request) -> Result:
        active.append(request)
        most["all"] = max(most["all"], len(active))
        most["one"] = max(most["one"], active.count(request))
        await release.wait()
        active.remove(request)
        return Result()

    channel: asyncio.Queue[Request] = asyncio.Queue()
    manager, recorder = Manager(client), Recorder(script)
    Controller("c", recorder, workers=3).watches_channel(channel).register(manager)
    async with running(manager):
        for name in "abcdabcd":
            channel.put_nowait(Request("", name))
        await eventually(lambda: len(active) == 3)
        for name in "abc":
            channel.put_nowait(Request("", name))
        await eventually(channel.empty)
        release.set()
        await eventually(lambda: len(recorder.requests) == 7)
    assert most == {"all": 3, "one": 1}


async def test_stopping_lets_a_running_reconcile_finish(client: MemoryClient, eventually: Any) -> None:
    release, finished = asyncio.Event(), []

    async def slow(request: Request) -> Result:
        await release.wait()
        finished.append(request.name)
        return Result()

    channel: asyncio.Queue[Request] = asyncio.Queue()
    manager, recorder = Manager(client), Recorder(slow)
    Controller("c", recorder).watches_channel(channel).register(manager)
    async with running(manager) as task:
        channel.put_nowait(Request("", "running"))
        await eventually(lambda: len(recorder.requests) == 1)
        channel.put_nowait(Request("", "waiting"))
        await eventually(channel.empty)
        task.cancel()
        await eventually(lambda: not manager.ready)
        release.set()
        async with asyncio.timeout(10):
            await asyncio.wait([task])
    assert task.cancelled()
    assert finished == ["running"]


async def test_a_reconcile_that_does_not_finish_is_cancelled(client: MemoryClient, eventually: Any) -> None:
    async def hang(_request: Request) -> Result:
        await asyncio.Event().wait()
        return Result()

    channel: asyncio.Queue[Request] = asyncio.Queue()
    manager, recorder = Manager(client, stop_grace=0.01), Recorder(hang)
    Controller("c", recorder).watches_channel(channel).register(manager)
    async with running(manager):
        channel.put_nowait(Request("", "a"))
        await eventually(lambda: recorder.requests)


async def test_stopping_before_the_caches_are_whole_ends_the_run(client: MemoryClient) -> None:
    async def never(*_args: Any, **_more: Any) -> None:
        await asyncio.Event().wait()

    client.list = never  # type: ignore[method-assign, assignment]
    manager = Manager(client)
    Controller("c", Recorder()).watches(ConfigMap).register(manager)
    task = asyncio.create_task(manager.run())
    await asyncio.sleep(0)
    manager.stop()
    async with asyncio.timeout(10):
        await task


async def test_a_task_that_fails_ends_the_manager(client: MemoryClient) -> None:
    async def fail() -> None:
        raise RuntimeError("no good")

    manager = Manager(client)
    manager.add_task(fail)
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(10):
            await manager.run()
    assert caught.group_contains(RuntimeError, match="no good")


async def test_a_task_runs_beside_and_is_cancelled_at_the_end(client: MemoryClient) -> None:
    states: list[str] = []

    async def task() -> None:
        states.append("started")
        try:
            await asyncio.Event().wait()
        finally:
            states.append("ended")

    manager = Manager(client)
    manager.add_task(task)
    async with running(manager) as run:
        assert states == ["started"]
    assert states == ["started", "ended"]
    assert run.exception() is None


async def test_a_controller_name_is_taken_once(client: MemoryClient) -> None:
    manager = Manager(client)
    Controller("c", Recorder()).register(manager)
    with pytest.raises(ValueError, match="named c"):
        Controller("c", Recorder()).register(manager)


async def test_a_controller_without_manager_says_so() -> None:
    with pytest.raises(RuntimeError, match="not registered"):
        await Controller("c", Recorder()).run()

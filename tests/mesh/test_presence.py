"""An instance tells the others what may change a decision of theirs, and does not chatter."""

import asyncio
import math

import grpc
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from api.proto.model_mesh_pb2 import GetStatusRequest, ModelStatusInfo
from api.proto.model_mesh_pb2_grpc import ModelMeshStub
from mesh.constraints import RpcRules, TypeConstraints
from mesh.errors import StartError
from mesh.loading import Loader
from mesh.native import NativeBytePath
from mesh.node import MeshNode, Settings
from mesh.presence import GAP_SECONDS, LONGEST_GAP_SECONDS, URGENT_GAP_SECONDS, Presence, gap
from mesh.runtime import Runtime
from store.base import Put
from store.memory import MemoryBackend, MemoryStore
from store.records import INSTANCES, InstanceRecord, Resources
from store.session import LEASE_SECONDS, Session
from tests.mesh.conftest import Instance, Mesh, config
from tests.mesh.fake_bytes import Failed, FakeBytes
from tests.mesh.fake_runtime import FakeRuntime
from tests.mesh.test_node import register
from tests.store.waiting import until

SOME = InstanceRecord(
    address="a:1",
    lru_time=1_000_000,
    count=100,
    capacity=Resources(1_000),
    used=Resources(500),
    load_slots=4,
    loading=2,
    rpm=1_000,
    ready=True,
)


@pytest.mark.parametrize(
    ("change", "seconds"),
    [
        ({}, math.inf),
        ({"ready": False}, URGENT_GAP_SECONDS),
        ({"shutdown": True}, URGENT_GAP_SECONDS),
        ({"capacity": Resources(999)}, URGENT_GAP_SECONDS),
        ({"used": Resources(450)}, GAP_SECONDS),
        ({"used": Resources(549)}, LONGEST_GAP_SECONDS),
        ({"count": 110}, GAP_SECONDS),
        ({"count": 109}, LONGEST_GAP_SECONDS),
        ({"loading": 0}, GAP_SECONDS),
        ({"loading": 5}, GAP_SECONDS),
        ({"loading": 4}, LONGEST_GAP_SECONDS),
        ({"rpm": 1_100}, GAP_SECONDS),
        ({"rpm": 1_099}, LONGEST_GAP_SECONDS),
        ({"lru_time": 1_020_000}, GAP_SECONDS),
        ({"lru_time": 1_019_999}, LONGEST_GAP_SECONDS),
    ],
)
def test_the_more_a_change_matters_the_sooner_it_is_told(change: dict[str, object], seconds: float) -> None:
    assert gap(SOME, replace(SOME, **change)) == seconds


async def told(mesh: Mesh, instance: Instance) -> InstanceRecord:
    kv = mesh.store.get(instance.node.registry.instances.key("one"))
    assert kv is not None
    record, _ = INSTANCES.decode(kv.value)
    return record


async def test_what_is_told_is_what_is_so(mesh: Mesh) -> None:
    one = await mesh.add(MM_LABELS="b,a", MM_ZONE="z", MM_LOCATION="node", SERVICE_VERSION="v1")
    await register(one, "m", "SIZE_4000_0_0")
    await one.bytes.request("m")

    async def counts() -> bool:
        return (await told(mesh, one)).count == 1

    await until(counts)
    record = await told(mesh, one)
    assert (record.capacity, record.used, record.default_size) == (
        Resources(10_000),
        Resources(4_000),
        Resources(1_000),
    )
    assert (record.labels, record.zone, record.location, record.version) == (("a", "b"), "z", "node", "v1")
    assert (record.address, record.ready, record.shutdown, record.load_slots) == (one.address, True, False, 2)


async def test_nothing_is_told_twice(mesh: Mesh) -> None:
    one = await mesh.add()
    await one.node.presence.publish_now()
    assert one.node.presence.due_in() == math.inf


async def test_what_could_not_be_told_is_told_when_the_store_is_back(mesh: Mesh) -> None:
    one = await mesh.add(runtime=None)
    mesh.store.set_available(False)
    await one.runtime.crash()
    await one.node.guard.suspect()
    assert one.node.presence.due_in() < 1
    mesh.store.set_available(True)

    async def is_told() -> bool:
        return not (await told(mesh, one)).ready

    await until(is_told)


async def test_an_instance_that_leaves_says_so(mesh: Mesh) -> None:
    one = await mesh.add()
    await one.node.leave()
    assert (await told(mesh, one)).shutdown
    assert not one.bytes.ready


def presence(memory: MemoryBackend, address: str, name: str = "pod") -> tuple[Presence, MemoryStore]:
    host, _, port = address.partition(":")
    settings = config(name, 1, MM_PEER_PORT=port, WKUBE_POD_IPADDR=host)
    store = MemoryStore(memory)
    loader = Loader(
        Runtime("tcp:unused:1", "tcp:unused:1", NativeBytePath(settings)),
        on_loaded=lambda _: None,
        on_evict=lambda *_: None,
        note_use=lambda: None,
        drained=never,
        now=lambda: 0,
    )
    session = Session(store)
    return Presence(settings, session, "/i/", loader, terms=lambda: None, now=lambda: 0), store


async def never(_: str) -> None:
    raise AssertionError("nothing is unloaded here")


def holder(memory: MemoryBackend) -> str:
    kv = memory.get("/i/pod")
    assert kv is not None
    return INSTANCES.decode(kv.value)[0].address


async def test_an_instance_id_is_taken_by_one_of_two_that_start_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mesh.presence.CLAIM_SECONDS", 0.001)
    monkeypatch.setattr("mesh.presence.LEASE_SECONDS", 0.02)
    monkeypatch.setattr("mesh.presence.KEEP_ALIVE_SECONDS", 0)
    memory = MemoryBackend()
    claims = [presence(memory, f"10.0.0.{number}:80") for number in (1, 2)]
    outcomes = await asyncio.gather(*(one.claim(store) for one, store in claims), return_exceptions=True)
    assert outcomes.count(None) == 1
    (error,) = (outcome for outcome in outcomes if outcome is not None)
    assert isinstance(error, StartError)
    assert f"the instance id pod is in use by a process at {holder(memory)}" in str(error)


async def test_a_process_that_was_killed_is_succeeded_at_once_at_the_same_address() -> None:
    memory = MemoryBackend()
    for _ in range(2):
        new, store = presence(memory, "10.0.0.1:80")
        async with asyncio.timeout(1):
            await new.claim(store)
    assert new.due_in() == math.inf, "it is published"
    memory.end_lease(1)
    assert holder(memory) == "10.0.0.1:80", "the record went over to the lease of the successor"


async def test_a_pod_that_comes_back_elsewhere_waits_for_the_lease_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mesh.presence.CLAIM_SECONDS", 0.001)
    now = 0.0
    memory = MemoryBackend(clock=lambda: now)
    old, store = presence(memory, "10.0.0.1:80")
    await old.claim(store)
    new, store = presence(memory, "10.0.0.2:80")
    claiming = asyncio.create_task(new.claim(store))
    with capture_logs() as logs:
        await until(lambda: bool(logs))
    assert logs[0]["address"] == "10.0.0.1:80"
    assert holder(memory) == "10.0.0.1:80"
    now = LEASE_SECONDS
    await asyncio.wait_for(claiming, 5)
    assert holder(memory) == "10.0.0.2:80"


async def test_a_record_that_no_process_keeps_is_nobodys() -> None:
    memory = MemoryBackend()
    new, store = presence(memory, "10.0.0.2:80")
    await store.txn([], [Put("/i/pod", INSTANCES.encode(InstanceRecord(address="10.0.0.1:80")))])
    async with asyncio.timeout(1):
        await new.claim(store)
    assert holder(memory) == "10.0.0.2:80"


async def test_a_second_process_of_the_same_id_leaves_the_copies_of_the_first_alone(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.presence.LEASE_SECONDS", 0)
    monkeypatch.setattr("mesh.presence.KEEP_ALIVE_SECONDS", 0)
    one = await mesh.add("one")
    await register(one, "m")
    await one.bytes.request("m")
    with pytest.raises(StartError, match="in use"):
        await mesh.add("one")
    await one.node.registry.refresh("m")
    record = one.node.registry.peek("m")
    assert record is not None
    assert "one" in record.instances


async def test_while_the_id_is_waited_for_nobody_is_told_that_there_is_nothing(mesh: Mesh) -> None:
    other, store = presence(mesh.store, "127.0.0.1:1", "one")
    other._key = "/mm/modelmesh-serving/v1/instances/one"
    await other.claim(store)
    await register(await mesh.add("two"), "m")
    runtime = FakeRuntime()
    await runtime.start()
    settings = config("one", runtime.port)
    byte_path = FakeBytes("one", NativeBytePath(settings))
    target = f"tcp:127.0.0.1:{runtime.port}"
    node = MeshNode(
        settings,
        MemoryStore(mesh.store),
        Runtime(target, target, byte_path),
        byte_path,
        Settings(TypeConstraints(), RpcRules()),
    )
    starting = asyncio.create_task(node.start())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{settings.grpc_port}") as channel:
        api = ModelMeshStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="is starting") as caught:
            await api.getModelStatus(GetStatusRequest(modelId="m"), wait_for_ready=True)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(Failed, match="is starting"):
            await byte_path.request("m")
        await other._session.end()
        await starting
        assert (await api.getModelStatus(GetStatusRequest(modelId="m"))).status == ModelStatusInfo.NOT_LOADED
    await node.stop(0)
    await runtime.stop()

"""What users of a whole mesh rely on: three mesh processes, one etcd, runtimes that keep strict accounts.

All tests share one mesh and use models of their own; those that stop a part of it come last, and start it
again.
"""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError

from api.proto import kfs_inference_v2_pb2 as v2
from api.proto import kfs_inference_v2_pb2_grpc, model_mesh_pb2_grpc
from api.proto.model_mesh_pb2 import (
    DeleteVModelRequest,
    EnsureLoadedRequest,
    GetStatusRequest,
    GetVModelStatusRequest,
    ModelInfo,
    ModelStatusInfo,
    RegisterModelRequest,
    SetVModelRequest,
    UnregisterModelRequest,
    VModelStatusInfo,
)
from bench.cluster import CHANNEL_OPTIONS, MIB, Cluster, Instance, cluster
from controller import status as controller
from controller.status import ModelStatus, Reason, State, Support, Transition, Urls
from store.connection import EtcdConnection, connect
from store.session import LEASE_SECONDS
from tests.store.waiting import until

pytestmark = pytest.mark.e2e

A, B, C = "5f6d7-aaaaa", "5f6d7-bbbbb", "5f6d7-ccccc"
ROOM = 12
"""Models of 1 MiB that one instance holds."""
HOUR_MS = 3_600_000
PLAIN = f"SIZE_{MIB}_0_0"
CONSTRAINTS = {
    "on-a": {"required": ["a"]},
    "on-b": {"required": ["b"]},
    "on-c": {"required": ["c"]},
    "near-a": {"preferred": ["a"]},
    "near-b": {"preferred": ["b"]},
    "near-c": {"preferred": ["c"]},
    "nowhere": {"required": ["nobody"]},
    "unsupported": {"required": ["_no_runtime"]},
}
SETTINGS = {
    "MM_DATAPLANE_CONFIG": "",  # names are in headers, so that requests can name models and vmodels
    "MM_TYPE_CONSTRAINTS": json.dumps(CONSTRAINTS),
    "MM_LOAD_FAILURE_EXPIRY_TIME_MS": "4000",
}
NO_HOME = "There are no running instances that meet the label requirements of type "


class Names:
    """What was registered since the last test, under names that no other test has used."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self.models: list[str] = []
        self.vmodels: set[str] = set()

    def model(self) -> str:
        self.models.append(f"m{next(self._numbers)}")
        return self.models[-1]


names = Names()


class User:
    """A client of one instance."""

    def __init__(self, channel: Any) -> None:
        self.mesh: Any = model_mesh_pb2_grpc.ModelMeshStub(channel)
        self._v2: Any = kfs_inference_v2_pb2_grpc.GRPCInferenceServiceStub(channel)

    async def register(self, path: str = PLAIN, type_: str = "echo") -> str:
        """Registers a new model; returns its id."""
        model_id = names.model()
        info = ModelInfo(type=type_, path=path)
        await self.mesh.registerModel(RegisterModelRequest(modelId=model_id, modelInfo=info))
        return model_id

    async def load(self, model_id: str, last_used: int = 0) -> ModelStatusInfo:
        request = EnsureLoadedRequest(modelId=model_id, lastUsedTime=last_used, sync=True)
        info: ModelStatusInfo = await self.mesh.ensureLoaded(request, timeout=30)
        return info

    async def status(self, model_id: str) -> ModelStatusInfo:
        info: ModelStatusInfo = await self.mesh.getModelStatus(GetStatusRequest(modelId=model_id))
        return info

    async def places(self, model_id: str) -> list[str]:
        """Instances that have the model loaded."""
        infos = (await self.status(model_id)).modelCopyInfos
        return [info.location for info in infos if info.copyStatus == ModelStatusInfo.LOADED]

    async def deploy(self, vmodel_id: str, path: str = PLAIN, **fields: Any) -> tuple[str, VModelStatusInfo]:
        """Has a vmodel serve a new model; returns the model's id and the answer."""
        model_id, type_ = names.model(), fields.pop("type", "echo")
        names.vmodels.add(vmodel_id)
        info = await self.mesh.setVModel(
            SetVModelRequest(
                vModelId=vmodel_id,
                targetModelId=model_id,
                modelInfo=ModelInfo(type=type_, path=path),
                autoDeleteTargetModel=True,
                loadNow=True,
                owner="isvc",
                **fields,
            )
        )
        return model_id, info

    async def infer(self, name: str, *, alias: bool = False, seconds: float = 20) -> str:
        """Returns the model that answered."""
        metadata = (("mm-vmodel-id" if alias else "mm-model-id", name),)
        request = v2.ModelInferRequest(model_name="any")
        answer = await self._v2.ModelInfer(request, metadata=metadata, timeout=seconds)
        return str(answer.model_name)


@asynccontextmanager
async def opened(mesh: Cluster) -> AsyncIterator[list[User]]:
    """A client of each instance."""
    channels = [
        grpc.aio.insecure_channel(instance.target, options=CHANNEL_OPTIONS) for instance in mesh.instances
    ]
    try:
        yield [User(channel) for channel in channels]
    finally:
        for channel in channels:
            await channel.close()


@pytest.fixture(scope="module")
def mesh() -> Iterator[Cluster]:
    with cluster() as opened_mesh:
        for label in "abc":
            environment = SETTINGS | {"MM_LABELS": label}
            opened_mesh.place(f"--capacity={ROOM * MIB}", "--load-slots=4", environment=environment)
        with ThreadPoolExecutor() as pool:
            list(pool.map(Instance.start, opened_mesh.instances))
        yield opened_mesh
        for instance in opened_mesh.instances:
            stats = instance.runtime.stats()
            assert (stats["over_capacity"], stats["conflicts"]) == (0, 0)
            assert stats["peak_asked_bytes"] <= stats["capacity_bytes"]


@pytest.fixture
async def users(mesh: Cluster) -> AsyncIterator[list[User]]:
    async with opened(mesh) as clients:
        await until(lambda: is_empty(mesh, clients[0]), 20)
        yield clients


async def is_empty(mesh: Cluster, user: User) -> bool:
    """Takes away what the test has left, so that the next one finds all the room."""
    while names.vmodels:
        await user.mesh.deleteVModel(DeleteVModelRequest(vModelId=names.vmodels.pop()))
    while names.models:
        await user.mesh.unregisterModel(UnregisterModelRequest(modelId=names.models.pop()))
    published = await records(mesh, "instances")
    ready = sum(record.get("ready", False) and not record.get("used") for record in published.values())
    return total(mesh, "bytes") == 0 and ready == len(mesh.instances)


async def failing(call: Any) -> tuple[StatusCode, str]:
    with pytest.raises(AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def records(mesh: Cluster, kind: str) -> dict[str, Any]:
    """What etcd holds: id -> record."""
    store = await connect(EtcdConnection((mesh.etcd.endpoint,)))
    try:
        prefix = f"/mm/modelmesh-serving/v1/{kind}/"
        return {kv.key.removeprefix(prefix): json.loads(kv.value) for kv in (await store.range(prefix)).items}
    finally:
        await store.close()


def total(mesh: Cluster, count: str) -> int:
    return sum(instance.runtime.stats()[count] for instance in mesh.instances)


async def is_at(users: Sequence[User], model_id: str, place: str) -> bool:
    """Whether all instances know of one copy, there."""
    return all([await user.places(model_id) == [place] for user in users])


async def where(users: Sequence[User], model_ids: Sequence[str]) -> set[str]:
    """Instances that have the models, each of which has a copy."""
    found: set[str] = set()
    for model_id in model_ids:
        await until(lambda model_id=model_id: users[0].places(model_id))
        found.update(await users[0].places(model_id))
    return found


async def test_a_model_goes_where_its_types_labels_are_whoever_is_asked(users: list[User]) -> None:
    for type_, place in (("on-a", A), ("on-b", B), ("on-c", C)):
        for user in users:
            model_id = await user.register(type_=type_)
            assert await user.infer(model_id) == model_id
            await until(lambda model_id=model_id, place=place: is_at(users, model_id, place))


async def test_requests_at_one_instance_have_models_loaded_by_its_peers(
    mesh: Cluster, users: list[User]
) -> None:
    user = users[0]
    model_ids = [await user.register() for _ in range(2 * ROOM)]
    assert [await user.infer(model_id) for model_id in model_ids] == model_ids
    assert len(await where(users, model_ids)) > 1
    loads = total(mesh, "loads")
    for other in users:
        assert await asyncio.gather(*(other.infer(model_id) for model_id in model_ids[:3])) == model_ids[:3]
    assert total(mesh, "loads") == loads, "a copy anywhere is a hit everywhere"


async def test_the_oldest_content_of_all_instances_makes_room(mesh: Cluster, users: list[User]) -> None:
    user, now = users[2], time.time_ns() // 1_000_000
    loaded: dict[str, list[str]] = {}
    for place, hours in (("a", 3), ("b", 5), ("c", 1)):
        loaded[place] = [await user.register(type_=f"on-{place}") for _ in range(ROOM)]
        for number, model_id in enumerate(loaded[place]):
            await user.load(model_id, now - hours * HOUR_MS + number * 1_000)

    async def known() -> bool:
        """The instance that is asked places by what the others have published."""
        published = await records(mesh, "instances")
        if any(record.get("used", {}).get("memory") != ROOM * MIB for record in published.values()):
            return False
        ages = {id_: (now - record["lruTime"]) // HOUR_MS for id_, record in published.items()}
        return ages == {A: 3, B: 5, C: 1}

    await until(known, 20)
    new = [await user.register() for _ in range(2)]
    for model_id in new:
        assert await user.infer(model_id) == model_id
        await until(lambda model_id=model_id: is_at(users, model_id, B))
    gone = [model_id for model_id in itertools.chain(*loaded.values()) if not await user.places(model_id)]
    assert gone == loaded["b"][:2]


async def test_three_times_as_many_models_as_fit_are_served_without_an_error(users: list[User]) -> None:
    model_ids = [await users[0].register(f"SIZE_{MIB}_5_5") for _ in range(9 * ROOM)]
    for _ in range(2):
        calls = [user.infer(model_id) for user, model_id in zip(itertools.cycle(users), model_ids)]
        assert await asyncio.gather(*calls) == model_ids


async def test_a_failure_is_tried_on_every_instance_recorded_and_tried_again_after_its_rest(
    mesh: Cluster, users: list[User]
) -> None:
    model_id = await users[0].register("FAIL_no such bucket")
    failed = total(mesh, "failed_loads")
    info = await users[0].load(model_id)
    assert info.status == ModelStatusInfo.LOADING_FAILED
    assert {(copy.location, copy.copyStatus) for copy in info.modelCopyInfos} == {
        (place, ModelStatusInfo.LOADING_FAILED) for place in (A, B, C)
    }
    (text,) = info.errors
    assert "no such bucket" in text
    for user in users:
        code, details = await failing(user.infer(model_id))
        assert code is StatusCode.FAILED_PRECONDITION
        assert details == text
    assert total(mesh, "failed_loads") == failed + 3, "not asked again while it rests"

    async def tried_again() -> bool:
        await failing(users[1].infer(model_id))
        return total(mesh, "failed_loads") > failed + 3

    await until(tried_again, 15)


async def test_a_runtime_that_lost_its_models_has_them_loaded_again(mesh: Cluster, users: list[User]) -> None:
    model_ids = [await users[0].register(type_="on-b") for _ in range(3)]
    for model_id in model_ids:
        await users[0].infer(model_id)
    assert mesh.instances[1].runtime.purge()["loaded"] == 0
    for user, model_id in zip(users, model_ids, strict=True):
        assert await user.infer(model_id) == model_id


async def test_the_controller_understands_a_type_without_a_home(users: list[User]) -> None:
    unsupported = Support(exists=False, message="none of them")
    for type_, code in (
        ("nowhere", StatusCode.UNAVAILABLE),
        ("unsupported", StatusCode.FAILED_PRECONDITION),
    ):
        model_id, info = await users[0].deploy(f"v-{type_}", type=type_)
        labels = ", ".join(CONSTRAINTS[type_]["required"])
        assert await failing(users[1].infer(model_id)) == (code, f"{NO_HOME}{type_}: [{labels}]")
        assert list(info.activeModelStatus.errors) == [f"{NO_HOME}{type_}: [{labels}]"]
        if type_ == "nowhere":
            seen = observed(info, ModelStatus())
            assert (seen.active, seen.available, seen.waits_for_runtime) == (State.LOADING, False, True)
        else:
            seen = observed(info, ModelStatus(), unsupported)
            assert seen.active is State.FAILED
            assert seen.failure is not None
            assert seen.failure.reason is Reason.NO_SUPPORTING_RUNTIME


def observed(info: VModelStatusInfo, before: ModelStatus, support: Support | None = None) -> ModelStatus:
    """What the controller makes of an answer."""
    return controller.updated(before, info, support or Support(), Urls(), datetime.now(UTC))


async def test_a_vmodel_moves_without_a_gap_and_the_controller_sees_it(users: list[User]) -> None:
    old, info = await users[0].deploy("moving", sync=True)
    seen = observed(info, ModelStatus())
    assert (seen.active, seen.transition) == (State.LOADED, Transition.UP_TO_DATE)
    answers: list[str] = []
    done = asyncio.Event()

    async def ask(user: User) -> None:
        while not done.is_set():
            answers.append(await user.infer("moving", alias=True))

    async with asyncio.TaskGroup() as tasks:
        for user in users:
            tasks.create_task(ask(user))
        new, info = await users[1].deploy("moving", f"SIZE_{MIB}_500_0")
        seen = observed(info, seen)
        assert (seen.active, seen.target, seen.transition) == (
            State.LOADED,
            State.LOADING,
            Transition.IN_PROGRESS,
        )

        async def moved() -> bool:
            info = await users[2].mesh.getVModelStatus(GetVModelStatusRequest(vModelId="moving"))
            return info.status == VModelStatusInfo.DEFINED and info.activeModelId == new

        await until(moved, 20)
        await until(lambda: answers[-3:] == [new] * 3)
        done.set()
    assert set(answers) == {old, new}
    assert (await users[0].status(old)).status == ModelStatusInfo.NOT_FOUND, "it goes with its last vmodel"


async def test_a_vmodel_stays_where_its_new_model_cannot_be_loaded(users: list[User]) -> None:
    old, info = await users[0].deploy("staying", sync=True)
    _, after = await users[1].deploy("staying", "FAIL_broken", sync=True)
    seen = observed(after, observed(info, ModelStatus()))
    assert (seen.active, seen.target, seen.transition) == (State.LOADED, State.FAILED, Transition.BLOCKED)
    assert seen.available
    assert seen.failure is not None
    assert "broken" in seen.failure.message
    assert await users[2].infer("staying", alias=True) == old


async def spread(users: Sequence[User]) -> list[str]:
    """Models that are loaded on all instances, and may be loaded on any."""
    types = itertools.islice(itertools.cycle(("near-a", "near-b", "near-c")), ROOM)
    model_ids = [await users[0].register(type_=type_) for type_ in types]
    for user, model_id in zip(itertools.cycle(users), model_ids, strict=False):
        await user.infer(model_id)
    assert await where(users, model_ids) == {A, B, C}
    return model_ids


async def test_models_of_a_killed_instance_answer_and_it_is_back_before_its_lease_ends(
    mesh: Cluster, users: list[User]
) -> None:
    model_ids = await spread(users)
    await asyncio.to_thread(mesh.instances[1].kill)
    for user in (users[0], users[2]):
        assert await asyncio.gather(*(user.infer(model_id) for model_id in model_ids)) == model_ids
    assert await asyncio.to_thread(mesh.instances[1].start) < LEASE_SECONDS - 5
    async with opened(mesh) as again:
        for model_id in model_ids:
            assert await again[1].infer(model_id) == model_id


async def test_an_instance_that_stops_takes_no_model_away(mesh: Cluster, users: list[User]) -> None:
    model_ids = await spread(users)
    await asyncio.to_thread(mesh.instances[2].stop)
    assert C not in await records(mesh, "instances")
    for model_id, record in (await records(mesh, "registry")).items():
        assert C not in record.get("instanceIds", {}), model_id
    for user in users[:2]:
        assert await asyncio.gather(*(user.infer(model_id) for model_id in model_ids)) == model_ids
    await asyncio.to_thread(mesh.instances[2].start)


async def test_loaded_models_serve_while_etcd_is_away_and_changes_go_on_when_it_is_back(
    mesh: Cluster, users: list[User]
) -> None:
    model_ids = await spread(users)
    await asyncio.to_thread(mesh.etcd.stop)
    code, _ = await failing(users[0].register())
    assert code is StatusCode.UNAVAILABLE
    for user in users:
        assert [await user.infer(model_id) for model_id in model_ids] == model_ids
    await asyncio.to_thread(mesh.etcd.start)

    async def changes_go_on() -> bool:
        with suppress(AioRpcError):
            new = await users[0].register()
            return await users[1].infer(new) == new
        return False

    await until(changes_go_on, 20)


async def test_an_etcd_that_lost_everything_is_filled_again_while_models_serve(
    mesh: Cluster, users: list[User]
) -> None:
    model_ids = await spread(users)
    await users[0].deploy("survivor", sync=True)
    before = {kind: set(await records(mesh, kind)) for kind in ("registry", "vmodels", "instances")}
    await asyncio.to_thread(mesh.etcd.stop)
    mesh.etcd.wipe()
    await asyncio.to_thread(mesh.etcd.start)

    async def is_full_again() -> bool:
        for user in users:
            assert [await user.infer(model_id) for model_id in model_ids[:4]] == model_ids[:4]
        return all([set(await records(mesh, kind)) >= before[kind] for kind in before])

    await until(is_full_again, 30)
    for user in users:
        assert [await user.infer(model_id) for model_id in model_ids] == model_ids
        assert await user.infer("survivor", alias=True)
    assert (await users[2].deploy("newcomer", sync=True))[
        1
    ].activeModelStatus.status == ModelStatusInfo.LOADED

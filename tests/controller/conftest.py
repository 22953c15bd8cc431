"""A whole controller on an in-memory API server, an in-memory registry and a fake mesh behind real gRPC."""

import asyncio
import base64
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import yaml
from prometheus_client import REGISTRY

from api.core import (
    CONFIG_MAP,
    DEPLOYMENT,
    ENDPOINTS,
    EVENT,
    HORIZONTAL_POD_AUTOSCALER,
    PERSISTENT_VOLUME_CLAIM,
    SECRET,
    SERVICE,
)
from api.core import NAMESPACE as NAMESPACE_KIND
from api.monitoring import SERVICE_MONITOR
from api.proto import model_mesh_pb2 as pb
from api.proto.model_mesh_pb2_grpc import ModelMeshServicer, add_ModelMeshServicer_to_server
from api.v1alpha1 import CLUSTER_SERVING_RUNTIME, PREDICTOR, SERVING_RUNTIME
from api.v1beta1 import INFERENCE_SERVICE
from controller.assembly import Assembly, Sources
from controller.environment import Environment
from controller.runtime import Manager
from controller.runtime.apiserver import Core, MemoryClient
from controller.runtime.errors import NotFound
from store.connection import EtcdConnection
from store.keys import Keyspace
from store.memory import MemoryBackend, MemoryStore
from store.table import Table

ROOT = Path(__file__).parents[2]
NAMESPACE = "modelmesh-serving"
DEADLINE_S = 10.0

RESOURCES = {
    r.kind: r
    for r in (
        CONFIG_MAP,
        DEPLOYMENT,
        ENDPOINTS,
        EVENT,
        HORIZONTAL_POD_AUTOSCALER,
        PERSISTENT_VOLUME_CLAIM,
        SECRET,
        SERVICE,
        SERVICE_MONITOR,
        CLUSTER_SERVING_RUNTIME,
        INFERENCE_SERVICE,
        PREDICTOR,
        SERVING_RUNTIME,
    )
}


class FakeMesh(ModelMeshServicer):
    """Answers as it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.vmodels: dict[str, pb.SetVModelRequest] = {}
        self.states: dict[str, pb.ModelStatusInfo] = {}
        self.active: dict[str, str] = {}
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.answer: Callable[[Any, Any], Awaitable[Any]] | None = None
        self.calls: list[Any] = []

    def say(self, model_id: str, state: str, *errors: str) -> None:
        """Decides the state of a model; its prefix is enough."""
        copies = []
        if state in {"LOADED", "LOADING", "LOADING_FAILED"}:
            copies = [
                pb.ModelStatusInfo.ModelCopyInfo(
                    location="pod-1",
                    copyStatus=pb.ModelStatusInfo.ModelStatus.Value(state),
                    time=1_700_000_000_000,
                ),
            ]
        self.states[model_id] = pb.ModelStatusInfo(
            status=pb.ModelStatusInfo.ModelStatus.Value(state),
            errors=errors,
            modelCopyInfos=copies,
        )

    def only(self, model_id: str, state: str) -> None:
        """Forgets all but this model."""
        self.states.clear()
        self.say(model_id, state)

    def say_otherwise(self, state: str, *errors: str) -> None:
        """Decides the state of all models not spoken of."""
        self.states.pop("", None)
        named, self.states = self.states, {}
        self.say("", state, *errors)
        self.states |= named

    def _state(self, model_id: str) -> pb.ModelStatusInfo:
        found = [state for prefix, state in self.states.items() if model_id.startswith(prefix)]
        return found[-1] if found else pb.ModelStatusInfo(status=pb.ModelStatusInfo.NOT_LOADED)

    def _status(self, name: str) -> pb.VModelStatusInfo:
        if name not in self.vmodels:
            return pb.VModelStatusInfo()
        target = self.vmodels[name].targetModelId
        active = self.active.setdefault(name, target)
        if active != target and self._state(target).status == pb.ModelStatusInfo.LOADED:
            active = self.active[name] = target
        failed = self._state(target).status == pb.ModelStatusInfo.LOADING_FAILED
        moving = pb.VModelStatusInfo.TRANSITION_FAILED if failed else pb.VModelStatusInfo.TRANSITIONING
        return pb.VModelStatusInfo(
            status=pb.VModelStatusInfo.DEFINED if active == target else moving,
            activeModelId=active,
            targetModelId=target,
            activeModelStatus=self._state(active),
            targetModelStatus=None if active == target else self._state(target),
            owner=self.vmodels[name].owner,
        )

    async def setVModel(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.calls.append(request)
        if self.answer is not None:
            return await self.answer(request, context)
        if self.refusal is not None:
            await context.abort(*self.refusal)
        if request.vModelId in self.vmodels and self.vmodels[request.vModelId].owner != request.owner:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "owner mismatch")
        self.vmodels[request.vModelId] = request
        return self._status(request.vModelId)

    async def getVModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        del context
        self.calls.append(request)
        return self._status(request.vModelId)

    async def deleteVModel(self, request: Any, context: Any) -> Any:  # noqa: N802
        del context
        self.calls.append(request)
        found = self.vmodels.get(request.vModelId)
        if found is not None and found.owner == request.owner:
            del self.vmodels[request.vModelId]
        return pb.DeleteVModelResponse()


class World:
    """What a scenario works with."""

    def __init__(self, client: Any, mesh: FakeMesh, port: int, namespace: str = NAMESPACE) -> None:
        self.client = self.controllers_client = client
        self.namespace = namespace
        self.mesh = mesh
        self.port = port
        self.backend = MemoryBackend()
        self.environment = Environment(namespace=namespace, namespace_scope=True)
        self.sources = Sources()

    # Acting.

    async def create(self, obj: dict[str, Any]) -> dict[str, Any]:
        obj.setdefault("metadata", {})
        resource = RESOURCES[obj["kind"]]
        if resource.namespaced:
            obj["metadata"].setdefault("namespace", self.namespace)
        return await self.client.create(resource, {"apiVersion": resource.api_version} | obj)

    async def change(self, kind: str, name: str, patch: dict[str, Any], namespace: str = "") -> None:
        await self.client.patch(RESOURCES[kind], name, namespace or self.place(kind), patch)

    async def delete(self, kind: str, name: str) -> None:
        await self.client.delete(RESOURCES[kind], name, self.place(kind))

    async def create_namespace(self, name: str, **labels: str) -> None:
        await self.client.create(NAMESPACE_KIND, {"metadata": {"name": name, "labels": labels}})

    async def enable(self, namespace: str, value: str | None = "true") -> None:
        """Labels a namespace; None takes the label away."""
        patch = {"metadata": {"labels": {"modelmesh-enabled": value}}}
        await self.client.patch(NAMESPACE_KIND, namespace, "", patch)

    async def put_secret(self, name: str, entries: dict[str, Any], namespace: str = "") -> None:
        """Makes a Secret, or replaces one; entries that are no text are written as JSON."""
        texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in entries.items()}
        data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace or self.namespace},
            "data": data,
        }
        if await self.get("Secret", name, namespace) is None:
            await self.client.create(SECRET, secret)
        else:
            await self.client.replace(SECRET, secret)

    async def create_claim(self, name: str) -> None:
        spec = {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
        }
        await self.create({"kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec})

    def place(self, kind: str) -> str:
        return self.namespace if RESOURCES[kind].namespaced else ""

    async def create_runtime(
        self,
        kind: str = "ServingRuntime",
        annotations: dict[str, str] | None = None,
        namespace: str = "",
        **spec: Any,
    ) -> None:
        raw = yaml.safe_load((ROOT / "runtimes" / "mlserver-1.x.yaml").read_text())
        raw |= {"kind": kind}
        raw["metadata"] |= {"annotations": annotations or {}}
        if RESOURCES[kind].namespaced:
            raw["metadata"]["namespace"] = namespace or self.namespace
        raw["spec"] |= spec
        await self.create(raw)

    async def create_isvc(
        self, name: str = "m", model_format: str = "sklearn", namespace: str = "", **model: Any
    ) -> None:
        model = {"modelFormat": {"name": model_format}, "storage": {"path": "p", "key": "k"}} | model
        model = {name: value for name, value in model.items() if value is not None}
        await self.create(
            {
                "kind": "InferenceService",
                "metadata": {
                    "name": name,
                    "namespace": namespace or self.namespace,
                    "annotations": {"serving.kserve.io/deploymentMode": "ModelMesh"},
                },
                "spec": {"predictor": {"model": model}},
            },
        )

    async def configure(self, **settings: Any) -> None:
        data = {"config.yaml": json.dumps(settings)}
        try:
            await self.client.get(CONFIG_MAP, "model-serving-config", self.namespace)
        except NotFound:
            await self.create(
                {"kind": "ConfigMap", "metadata": {"name": "model-serving-config"}, "data": data}
            )
        else:
            await self.change("ConfigMap", "model-serving-config", {"data": data})

    async def pods_come_up(self, namespace: str = "") -> None:
        """Makes the fake mesh a ready address of the Service."""
        address = {"addresses": [{"ip": "127.0.0.1"}], "ports": [{"name": "grpc", "port": self.port}]}
        await self.create(
            {
                "kind": "Endpoints",
                "metadata": {"name": "modelmesh-serving", "namespace": namespace or self.namespace},
                "subsets": [address],
            },
        )

    async def pods_go(self) -> None:
        await self.delete("Endpoints", "modelmesh-serving")

    async def create_etcd_secret(self) -> None:
        connection = json.dumps({"endpoints": "http://etcd:2379", "root_prefix": "root"})
        data = {"etcd_connection": base64.b64encode(connection.encode()).decode()}
        await self.create({"kind": "Secret", "metadata": {"name": "model-serving-etcd"}, "data": data})

    def table(self, codec: Any, part: str) -> Table[Any]:
        """The mesh's own view of the registry."""
        keys = Keyspace("", service="modelmesh-serving")
        return Table(MemoryStore(self.backend, root_prefix="root"), getattr(keys, part), codec)

    async def open_store(self, connection: EtcdConnection) -> MemoryStore:
        store = MemoryStore(self.backend, root_prefix=connection.root_prefix)
        await store.get("/")
        return store

    # Looking.

    @staticmethod
    async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
        """Returns once the condition holds; TimeoutError after the deadline."""
        async with asyncio.timeout(DEADLINE_S):
            while not await condition():  # noqa: ASYNC110 -- what is waited for is beyond a network
                await asyncio.sleep(0.01)

    async def asked(self, condition: Callable[[FakeMesh], bool]) -> None:
        """Returns once the mesh is as the condition says."""

        async def holds() -> bool:
            return condition(self.mesh)

        await self.eventually(holds)

    async def get(self, kind: str, name: str, namespace: str = "") -> dict[str, Any] | None:
        try:
            return await self.client.get(RESOURCES[kind], name, namespace or self.place(kind))
        except NotFound:
            return None

    async def all(self, kind: str) -> list[dict[str, Any]]:
        return (await self.client.list(RESOURCES[kind], self.place(kind))).items

    async def until(
        self,
        kind: str,
        name: str,
        condition: Callable[[Any], bool],
        namespace: str = "",
    ) -> Any:
        """Returns the object once the condition holds; fails with its last state."""
        seen: Any = None

        async def holds() -> bool:
            nonlocal seen
            seen = await self.get(kind, name, namespace)
            return condition(seen)

        try:
            await self.eventually(holds)
        except TimeoutError:
            pytest.fail(f"{kind} {name} never became as expected; it is {json.dumps(seen, indent=1)}")
        return seen

    async def settled(self) -> None:
        """Returns once no controller of this process has anything to do."""

        async def holds() -> bool:
            return not any(
                sample.value
                for metric in REGISTRY.collect()
                if metric.name in {"workqueue_depth", "controller_runtime_active_workers"}
                for sample in metric.samples
            )

        await self.eventually(holds)

    async def ready(self, name: str = "m", status: str = "True", message: str = "") -> dict[str, Any]:
        """Returns the isvc's status once its Ready condition is so."""

        def condition(obj: dict[str, Any] | None) -> bool:
            found = ready_condition(obj)
            return found.get("status") == status and message in found.get("message", "")

        return (await self.until("InferenceService", name, condition))["status"]

    async def events(self, *reasons: str, kind: str = "InferenceService") -> list[dict[str, Any]]:
        """Returns the events of one kind once all these reasons are there."""
        found: list[dict[str, Any]] = []

        async def holds() -> bool:
            found[:] = [e for e in await self.all("Event") if e["involvedObject"]["kind"] == kind]
            return set(reasons) <= {event["reason"] for event in found}

        try:
            await self.eventually(holds)
        except TimeoutError:
            pytest.fail(f"no events {reasons}; there are {[(e['reason'], e['message']) for e in found]}")
        return found


def ready_condition(obj: dict[str, Any] | None) -> dict[str, Any]:
    conditions = ((obj or {}).get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == "Ready"), {})


@functools.cache
def definitions() -> list[dict[str, Any]]:
    files = (ROOT / "config" / "crd").glob("*.yaml")
    return [yaml.load(path.read_text(), Loader=yaml.CSafeLoader) for path in files]


@pytest.fixture
async def idle_world() -> AsyncIterator[World]:
    """The world before the controller starts."""
    core = Core(namespaces=(NAMESPACE,))
    for definition in definitions():
        core.register_definition(definition)
    server = grpc.aio.server()
    mesh = FakeMesh()
    add_ModelMeshServicer_to_server(mesh, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield World(MemoryClient(core), mesh, port)
    await server.stop(None)


@pytest.fixture
async def world(idle_world: World) -> AsyncIterator[World]:
    """The world with the controller at work."""
    async with running(idle_world):
        yield idle_world


class running:  # noqa: N801 -- used like a function
    """Runs the controller in a world."""

    def __init__(self, world: World, environment: Environment | None = None) -> None:
        self._world = world
        self._environment = environment or world.environment

    async def __aenter__(self) -> Assembly:
        world = self._world
        environment = self._environment
        namespaces = [environment.namespace] if environment.namespace_scope else None
        manager = Manager(world.controllers_client, namespaces=namespaces)
        self._assembly = Assembly(manager, environment, world.sources, open_store=world.open_store)
        self._task = asyncio.create_task(manager.run())
        self._manager = manager
        ready = asyncio.create_task(manager.wait_ready())
        await asyncio.wait([ready, self._task], timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            await self._task
        return self._assembly

    async def __aexit__(self, *exc_info: object) -> None:
        self._manager.stop()
        await self._task
        await self._assembly.close()


@pytest.fixture
def controller_in() -> type[running]:
    return running

"""What is left after everything failed while users went on: exactly what they asked for.

A real kube-apiserver, a real etcd with a real mesh instance, and the controller as a process behind a proxy
that cuts all connections every second. Meanwhile the controller is killed, the API server is restarted and
its store compacted, and users create, change and delete a thousand models.
"""

import asyncio
import contextlib
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from api.core import DEPLOYMENT
from api.v1beta1 import INFERENCE_SERVICE
from bench.cluster import Instance
from controller.model_id import owner_of
from controller.runtime.errors import ClientError, NotFound
from controller.runtime.testing import KubeApiServer, install_definitions
from hack import kube_apiserver
from store.connection import EtcdConnection, connect
from store.keys import Keyspace
from store.records import KEYS, VMODELS
from store.table import Table
from tests.controller.conftest import World, ready_condition
from tests.controller.controller_process import ControllerProcess
from tests.store.etcd_server import etcd_server, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
RUNTIME = [sys.executable, "-m", "tests.mesh.runtime_process"]
MODELS = 1000
"""So many are created; all but every tenth are deleted again."""
SPELLS = 4
"""So often the controller is killed while it works."""
CUT_EVERY_S = 1.0
SETTLE_S = 120


class Proxy:
    """Passes bytes on to the API server, and cuts all connections when told."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self.cuts = 0

    async def start(self) -> int:
        """Returns its port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def cut(self) -> None:
        self.cuts += len(self._writers)
        for writer in list(self._writers):
            writer.transport.abort()

    async def stop(self) -> None:
        self._server.close()
        self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            upstream = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers |= {writer, upstream[1]}
            await asyncio.gather(_pass(reader, upstream[1]), _pass(upstream[0], writer))
            self._writers -= {writer, upstream[1]}
        writer.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
async def chaos(tmp_path: Path) -> AsyncIterator[Any]:
    """All of it; `world.stack` ends it in order."""
    with ExitStack() as processes:
        etcd = processes.enter_context(etcd_server(tmp_path / "registry"))
        port = free_port()
        runtime = subprocess.Popen([*RUNTIME, str(port)], cwd=ROOT)  # noqa: ASYNC220 -- outlives awaits
        processes.callback(lambda: (runtime.kill(), runtime.wait()))
        mesh = Instance("one", tmp_path, etcd, SimpleNamespace(target=f"127.0.0.1:{port}"))  # type: ignore[arg-type]
        processes.callback(mesh.stop)
        await asyncio.to_thread(mesh.start)
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(
                KubeApiServer(tmp_path / "kube", kube_apiserver.binaries())
            )
            admin = await stack.enter_async_context(await server.client())
            files = (ROOT / "config" / "crd").glob("*.yaml")
            definitions = [yaml.load(path.read_text(), Loader=yaml.CSafeLoader) for path in files]
            await install_definitions(admin, definitions)
            proxy = Proxy(server.port)
            url = f"https://127.0.0.1:{await proxy.start()}"
            stack.push_async_callback(proxy.stop)
            world = World(admin, None, 0, "chaos")  # type: ignore[arg-type]
            await world.create_namespace("chaos")
            await world.configure(modelMeshEndpoint=mesh.target, scaleToZero={"gracePeriodSeconds": 0})
            connection = {"endpoints": f"http://{etcd.endpoint}"}
            await world.put_secret("model-serving-etcd", {"etcd_connection": connection})
            kubeconfig = server.kubeconfig_for("controller", "system:masters", url=url)
            controller = ControllerProcess(
                kubeconfig, "chaos", tmp_path / "controller.log", NAMESPACE_SCOPE="true"
            )
            processes.callback(controller.kill)
            yield SimpleNamespace(
                world=world, server=server, proxy=proxy, controller=controller, etcd=etcd, log=tmp_path
            )


async def _insist(call: Callable[[], Awaitable[Any]]) -> Any:
    """Does what a user does whose kubectl failed: the same again."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await call()
            except NotFound:
                return None
            except ClientError as error:
                if getattr(error, "reason", "") == "AlreadyExists":
                    return None
                await asyncio.sleep(0.1)


async def _use(world: World, choice: random.Random) -> None:
    """Creates all models in an order of its own, changes some and deletes most."""
    names = [f"m-{number}" for number in range(MODELS)]
    choice.shuffle(names)

    async def live(name: str) -> None:
        storage = {"path": "SIZE_5_0_0", "key": "k"}
        await _insist(lambda: world.create_isvc(name, storage=storage))
        await asyncio.sleep(choice.uniform(0, 3))
        if choice.random() < 0.2:
            patch = {"spec": {"predictor": {"model": {"storage": {"path": "SIZE_6_0_0"}}}}}
            await _insist(lambda: world.change("InferenceService", name, patch))
        if int(name.removeprefix("m-")) % 10:
            await _insist(lambda: world.delete("InferenceService", name))

    slots = asyncio.Semaphore(MODELS // 5)

    async def in_turn(name: str) -> None:
        async with slots:
            await live(name)

    await asyncio.gather(*map(in_turn, names))


async def _trouble(chaos: Any, choice: random.Random) -> None:
    """Kills the controller at work, and cuts, compacts and restarts meanwhile. It runs at the end."""
    done = asyncio.Event()

    async def cut() -> None:
        while not done.is_set():
            await asyncio.sleep(CUT_EVERY_S)
            if chaos.controller.at_work:
                # One that starts gives up when it is cut off, and this is about its watches.
                chaos.proxy.cut()

    async def restart() -> None:
        while not done.is_set():
            await asyncio.sleep(choice.uniform(2, 5))
            with contextlib.suppress(TimeoutError):
                await chaos.server.compact()
            await asyncio.sleep(choice.uniform(1, 3))
            await chaos.server.stop_server(kill=choice.random() < 0.5)
            await chaos.server.start_server()

    async def kill() -> None:
        while chaos.controller.spells < SPELLS:
            await chaos.controller.work()
            await asyncio.sleep(choice.uniform(0, 4))
            chaos.controller.kill()
        done.set()

    await asyncio.gather(cut(), kill(), restart())
    await chaos.controller.work()


async def test_it_ends_as_users_asked_with_nothing_left_over(chaos: Any) -> None:
    choice = random.Random(5)  # noqa: S311 -- not for secrets
    world = chaos.world
    await world.create_runtime()
    await asyncio.gather(_use(world, choice), _trouble(chaos, choice))
    assert chaos.proxy.cuts > 0

    expected = {f"m-{number}" for number in range(0, MODELS, 10)}
    async with AsyncExitStack() as stack:
        store = await connect(EtcdConnection((chaos.etcd.endpoint,)))
        stack.push_async_callback(store.close)
        keys = Keyspace("", service="modelmesh-serving")
        seen: dict[str, Any] = {}

        async def holds() -> bool:
            vmodels, models = Table(store, keys.vmodels, VMODELS), Table(store, keys.models, KEYS)
            await vmodels.start()
            await models.start()
            objects = (await world.client.list(INFERENCE_SERVICE, "chaos")).items
            seen["objects"] = {obj["metadata"]["name"] for obj in objects}
            seen["not ready"] = {
                obj["metadata"]["name"] for obj in objects if ready_condition(obj).get("status") != "True"
            }
            seen["vmodels"] = {name for name, _ in vmodels.items()}
            targets = {entry.value.target for _, entry in vmodels.items()}
            seen["orphans"] = {name for name, _ in models.items()} - targets
            return (
                seen["objects"] == seen["vmodels"] == expected
                and not seen["not ready"]
                and not seen["orphans"]
                and {owner_of(target)[1] for target in targets} == expected  # type: ignore[index]
            )

        try:
            async with asyncio.timeout(SETTLE_S):
                while not await holds():  # noqa: ASYNC110 -- what is waited for is beyond a network
                    await asyncio.sleep(0.5)
        except TimeoutError:
            differences = {
                name: sorted(found ^ expected if name in {"objects", "vmodels"} else found)[:10]
                for name, found in seen.items()
            }
            log = (chaos.log / "controller.log").read_text()[-5000:]
            pytest.fail(f"it did not settle: {differences}\n{log}")
    deployments = (await world.client.list(DEPLOYMENT, "chaos")).items
    assert [d["metadata"]["name"] for d in deployments] == ["modelmesh-serving-mlserver-1.x"]
    assert deployments[0]["spec"]["replicas"] == 2

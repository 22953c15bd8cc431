"""The mesh process: `modelmesh mesh`, container `mm` of a runtime pod."""

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import structlog

from mesh.config import Config, read_config
from mesh.constraints import RpcRules, TypeConstraints, Watched, parse_constraints, parse_rpc_rules
from mesh.errors import ConfigError, MeshError, StartError
from mesh.native import NativeBytePath
from mesh.node import MeshNode, Settings
from mesh.probes import HttpPages
from mesh.runtime import Runtime
from mesh.static_models import read_static_models, register_static_models
from store.connection import connect, read_connection
from store.errors import StoreError

if TYPE_CHECKING:
    from store.base import Store

STOP_RESERVE_SECONDS = 3.0
"""Of the time to shut down, kept for everything but serving requests under way."""
GRACE_SECONDS = 15.0
"""At most kept for requests under way when the models have been handed over; the original's time."""
LEAVE_SECONDS = 1.0
"""Between saying goodbye and closing the ports, so that peers and load balancers have heard it."""
POLICY_NICENESS = 10
"""Of the policy's thread: it gets a tenth of a processor that a thread of the byte path wants as well."""
TERMINATION_LOG = Path("/dev/termination-log")

log = structlog.get_logger(__name__)
T = TypeVar("T")


def main(argv: list[str]) -> int:
    """Runs one mesh instance until SIGTERM or SIGINT; returns the exit status."""
    if argv:
        sys.stderr.write("modelmesh mesh takes no arguments; it is configured by environment variables\n")
        return 2
    try:
        config = read_config()
        asyncio.run(_run(config))
    except (ConfigError, StartError, MeshError, StoreError, OSError) as error:
        log.critical("mesh not started", error=str(error))
        _explain(f"Service startup failed: {error}")
        return 1
    return 0


async def _run(config: Config) -> None:
    stopping = asyncio.Event()
    process = MeshProcess(config)
    starting = asyncio.create_task(process.start())

    def stop() -> None:
        stopping.set()
        starting.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await asyncio.wait({starting})
        if starting.cancelled():
            log.info("mesh not started: told to stop")
            return
        starting.result()
        await process.run(stopping)
    finally:
        await process.stop()


class MeshProcess:
    """A node with its store, its servers and its files."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stopped = asyncio.Event()
        self._constraints = _watched(
            config.type_constraints_path, config.type_constraints, parse_constraints, TypeConstraints()
        )
        self._rules = _watched(
            config.dataplane_config_path, config.dataplane_config, parse_rpc_rules, RpcRules()
        )
        self._pages: list[HttpPages] = []
        self._static_models = read_static_models(config.static_models, config.static_models_path)
        self._fault: StartError | MeshError | None = None
        self._node: MeshNode | None = None
        self._store: Store | None = None

    async def start(self) -> None:
        """Connects, opens all ports, reads the registry. Raises StoreError, OSError or ConfigError."""
        config = self._config
        for name in config.ignored:
            log.warning("setting ignored: it means nothing here", name=name)
        for name in config.unsupported:
            log.warning("setting without effect: it is not supported yet", name=name)
        self._store = await connect(read_connection(config.kv_store))
        byte_path = NativeBytePath(config)
        runtime = Runtime(
            config.runtime_target, config.serving_target, byte_path, config.max_in_flight_per_copy
        )
        settings = Settings(self._constraints.value, self._rules.value)
        node = MeshNode(config, self._store, runtime, byte_path, settings)
        self._node = node
        node.readiness.hold()
        await self._serve_pages(node)
        await node.start()
        _step_back()
        gc.collect()
        gc.freeze()
        log.info(
            "mesh started",
            instance=config.instance_id,
            grpc=config.grpc_port,
            rest=config.rest_port,
            peer=config.peer_port,
            runtime=config.runtime_target,
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """Works until told to stop.

        Raises StartError or MeshError where the models of the settings could not be had.
        """
        node = self._node
        if node is None:
            return
        async with asyncio.TaskGroup() as tasks:
            work = [
                tasks.create_task(node.run()),
                tasks.create_task(self._constraints.follow(lambda _: self._apply())),
                tasks.create_task(self._rules.follow(lambda _: self._apply())),
                tasks.create_task(self._register_static_models(node, stopping)),
            ]
            await stopping.wait()
            log.info("mesh stopping")
            await self._leave(node)
            for task in work:
                task.cancel()
        if self._fault:
            raise self._fault

    async def _leave(self, node: MeshNode) -> None:
        """Hands the models over, then ends, all within the time to shut down."""
        seconds = self._config.shutdown_seconds
        end = time.monotonic() + seconds - STOP_RESERVE_SECONDS
        await node.leave()
        grace = min(GRACE_SECONDS, seconds / 4)
        await node.drain(end - time.monotonic() - LEAVE_SECONDS - grace)
        await asyncio.sleep(min(LEAVE_SECONDS, seconds / 4))
        await node.stop(max(0.0, end - time.monotonic()))

    async def stop(self) -> None:
        """Closes what is open."""
        self._stopped.set()
        for pages in self._pages:
            await pages.stop()
        if self._node is not None:
            await self._node.byte_path.stop(0)
            with suppress(StoreError):
                await self._node.session.end()
        if self._store is not None:
            await self._store.close()

    async def _register_static_models(self, node: MeshNode, stopping: asyncio.Event) -> None:
        try:
            await register_static_models(self._static_models, node.models, node.vmodels, node.status)
        except (StartError, MeshError) as error:
            self._fault = error
            stopping.set()
        else:
            node.readiness.release()

    def _apply(self) -> None:
        if self._node is not None:
            self._node.apply(Settings(self._constraints.value, self._rules.value))

    async def _serve_pages(self, node: MeshNode) -> None:
        config = self._config

        async def ready() -> tuple[HTTPStatus, str]:
            if obstacle := node.readiness.obstacle:
                return HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {obstacle}\n"
            return HTTPStatus.OK, "ready\n"

        async def live() -> tuple[HTTPStatus, str]:
            return HTTPStatus.OK, "live\n"

        async def prestop() -> tuple[HTTPStatus, str]:
            with suppress(TimeoutError):
                async with asyncio.timeout(2 * config.shutdown_seconds):
                    await self._stopped.wait()
            return HTTPStatus.OK, "stopped\n"

        async def metrics() -> tuple[HTTPStatus, str]:
            return HTTPStatus.OK, node.metrics.text() + node.byte_path.metrics()

        wanted = [
            (config.probe_port, {"/ready": ready, "/live": live}),
            (config.prestop_port, {"/prestop": prestop}),
        ]
        if config.metrics:
            if config.metrics.https:
                log.warning("metrics are served by plain HTTP; MM_METRICS asked for https")
            wanted.append((config.metrics.port, {"/metrics": metrics, "/": metrics}))
        for port, pages in wanted:
            if port:
                server = HttpPages(config.bind, port, pages)
                await server.start()
                self._pages.append(server)


def _step_back() -> None:
    """Lets the threads of the byte path, which exist by now, go before this one, the policy's.

    What the policy does takes milliseconds; a hit that waits for it would take as long.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), POLICY_NICENESS)
    except OSError as error:
        log.warning("priority of the policy not lowered", error=str(error))


def _watched(path: Path | None, inline: str, parse: Callable[[bytes | str], T], default: T) -> Watched[T]:
    watched = Watched(path, parse, parse(inline) if inline else default)
    watched.look()
    return watched


def _explain(text: str) -> None:
    with suppress(OSError):
        if TERMINATION_LOG.exists():
            TERMINATION_LOG.write_text(text)

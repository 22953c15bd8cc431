"""The model server beside this instance, as its SPI (`mmesh.ModelRuntime`) shows it.

By the contract that every runtime keeps, a server unloads everything before it answers `runtimeStatus` with
READY, so asking a healthy one would empty it: we ask while nothing is loaded, and see from its ports whether
it is still there. Our own adapters answer a session (the metadata `mm-session`, a new one for each wait)
without emptying anything twice, so those are asked all the time, and tell when their server had to start
again.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc
import structlog
from grpc import ChannelConnectivity, StatusCode

from api.proto.model_runtime_pb2 import (
    LoadModelRequest,
    LoadModelResponse,
    ModelSizeRequest,
    ModelSizeResponse,
    PredictModelSizeRequest,
    PredictModelSizeResponse,
    RuntimeStatusRequest,
    RuntimeStatusResponse,
    UnloadModelRequest,
)
from mesh.bytes import BytePath, CallError, Metadata, Reply
from mesh.errors import LoadFailedError, RuntimeDownError
from store.records import Resources

POLL_SECONDS = (0.1, 2.0)
"""First and longest pause between two questions whether the server is ready."""
STATUS_TIMEOUT_SECONDS = 10.0
PREDICT_TIMEOUT_SECONDS = 0.5
SIZE_TIMEOUT_SECONDS = 30.0
UNLOAD_TIMEOUT_SECONDS = 120.0
HOLDS_TIMEOUT_SECONDS = 10.0
PROBE_TIMEOUT_SECONDS = 1.0
LEAST_QUEUE, QUEUE_FACTOR = 16, 8
"""Requests on a copy whose concurrency the server limits: so many times the limit, but at least so many."""
UNBOUNDED_QUEUE = 2**31
CONNECTION_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.client_idle_timeout_ms", 2**31 - 1),  # it is there to be silent
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
SESSION_KEY = "mm-session"
PATIENCE_LOG_SECONDS = 30.0
"""A server that is not ready is logged this often."""
SERVICE = "mmesh.ModelRuntime"

log = structlog.get_logger(__name__)


class ModelInfo(NamedTuple):
    """What the server needs to know of a model."""

    model_id: str
    type: str
    path: str
    key: str


@dataclass(frozen=True, slots=True)
class RuntimeTerms:
    """What a ready server promises and asks for."""

    capacity: Resources
    load_slots: int
    load_timeout_seconds: float
    default_size: Resources
    version: str
    methods: Mapping[str, tuple[int, ...]]
    allow_any_method: bool


class Runtime:
    """The client of one model server, called through `byte_path`."""

    def __init__(
        self, target: str, serving_target: str, byte_path: BytePath, max_in_flight_per_copy: int = 0
    ) -> None:
        """`max_in_flight_per_copy` counts where the server limits requests; 0: it follows the limit."""
        self._target = target
        self._byte_path = byte_path
        self._max_in_flight_per_copy = max_in_flight_per_copy
        self._limits_concurrency = False
        self._serving_target = serving_target
        self._channel = byte_path.channel(target)
        self._predicts = True
        self._session = secrets.token_hex(8)
        self.on_measured: Callable[[float], None] = lambda _: None
        """Told how long the server took to measure a model, in ms."""
        self.knows_session = False
        self.silent = 0
        """Times in a row that the server has not answered in time; questions asked together count once."""
        self._round = 0

    async def ready(self) -> RuntimeTerms:
        """Waits until the server is ready, and thus empty."""
        self._session = secrets.token_hex(8)  # a new one, so that the server empties itself
        pause = POLL_SECONDS[0]
        waited = 0.0
        while True:
            why = "not ready yet"
            try:
                answer = await self._status()
                if answer.status == RuntimeStatusResponse.READY:
                    if not (fault := _fault(answer)):
                        self._limits_concurrency = answer.limitModelConcurrency
                        return _terms(answer)
                    why = f"its terms cannot be used: {fault}"
                elif answer.status == RuntimeStatusResponse.FAILING:
                    why = "it says that it is failing"
            except CallError as error:
                why = str(error)
            if waited // PATIENCE_LOG_SECONDS != (waited + pause) // PATIENCE_LOG_SECONDS:
                log.warning(
                    "waiting for the model server", target=self._target, seconds=round(waited), why=why
                )
            await asyncio.sleep(pause)
            waited += pause
            pause = min(pause * 1.5, POLL_SECONDS[1])

    async def alive(self) -> bool:
        """Whether both the SPI and the inference port accept connections."""
        targets = {self._target, self._serving_target}
        return all(await asyncio.gather(*(_accepts(target) for target in targets)))

    async def still_ready(self) -> bool:
        """Whether the server has been there all the time since it was ready."""
        if not self.knows_session:
            return await self.alive()
        try:
            answer = await self._status()
        except CallError:
            return await self.alive()
        return bool(answer.status == RuntimeStatusResponse.READY)

    async def disconnected(self) -> None:
        """Connects, and waits until the server ends that connection, as one does that ends itself."""
        target = self._target.removeprefix("tcp:")
        async with grpc.aio.insecure_channel(target, options=CONNECTION_OPTIONS) as channel:
            state = channel.get_state(try_to_connect=True)
            connected = False
            while not connected or state is ChannelConnectivity.READY:
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=not connected)
                connected = connected or state is ChannelConnectivity.READY

    async def holds(self, model_id: str) -> bool | None:
        """Whether the server has a model that it has loaded; None where it does not say."""
        request = ModelSizeRequest(modelId=model_id)
        try:
            await self._ask("modelSize", request.SerializeToString(), HOLDS_TIMEOUT_SECONDS)
        except CallError as error:
            return False if error.code is StatusCode.NOT_FOUND else None
        return True

    async def load(self, info: ModelInfo, timeout_seconds: float) -> Resources:
        """Loads a model and returns its size; a zero size means that the server does not know.

        Raises LoadFailedError where the server refuses the model, RuntimeDownError where there is no server.
        Cancellation cancels the server's work; the caller unloads in every case of failure.
        """
        request = LoadModelRequest(
            modelId=info.model_id, modelType=info.type, modelPath=info.path, modelKey=info.key
        )
        try:
            async with asyncio.timeout(timeout_seconds):
                reply = await self._channel.call(f"{SERVICE}/loadModel", request.SerializeToString())
        except TimeoutError:
            text = f"the model was not loaded within {timeout_seconds:g} s"
            raise LoadFailedError(StatusCode.DEADLINE_EXCEEDED, text) from None
        except CallError as error:
            if error.code is StatusCode.UNAVAILABLE and not await self.alive():
                raise RuntimeDownError(f"the model server is not available: {error.details}") from error
            raise LoadFailedError(error.code, error.details or "the model server gave no reason") from error
        answer = LoadModelResponse.FromString(reply.message)
        if self._limits_concurrency:
            concurrent = max(1, answer.maxConcurrency)
            most = self._max_in_flight_per_copy or max(LEAST_QUEUE, QUEUE_FACTOR * concurrent)
            # A negative bound is the original's word for none.
            queued = max(0, most - concurrent) if most > 0 else UNBOUNDED_QUEUE
            self._byte_path.limit(info.model_id, concurrent, queued)
        return Resources(answer.sizeInBytes) if answer.sizeInBytes else await self._measure(info.model_id)

    async def predict(self, info: ModelInfo) -> Resources | None:
        """How large a model will be; None where the server cannot say."""
        if not self._predicts:
            return None
        request = PredictModelSizeRequest(
            modelId=info.model_id, modelType=info.type, modelPath=info.path, modelKey=info.key
        )
        try:
            reply = await self._channel.call(
                f"{SERVICE}/predictModelSize",
                request.SerializeToString(),
                timeout_seconds=PREDICT_TIMEOUT_SECONDS,
            )
        except CallError as error:
            if error.code is StatusCode.UNIMPLEMENTED:
                self._predicts = False
            else:
                log.info("size not predicted", model=info.model_id, error=str(error))
            return None
        answer = PredictModelSizeResponse.FromString(reply.message)
        return Resources(answer.sizeInBytes) if answer.sizeInBytes else None

    async def unload(self, model_id: str) -> None:
        """Unloads a model; an unknown one is success. Raises RuntimeDownError, LoadFailedError."""
        self._byte_path.limit(model_id, 0, 0)
        request = UnloadModelRequest(modelId=model_id)
        try:
            await self._channel.call(
                f"{SERVICE}/unloadModel", request.SerializeToString(), timeout_seconds=UNLOAD_TIMEOUT_SECONDS
            )
        except CallError as error:
            if error.code is StatusCode.NOT_FOUND:
                return
            if error.code is StatusCode.UNAVAILABLE and not await self.alive():
                raise RuntimeDownError(f"the model server is not available: {error.details}") from error
            raise LoadFailedError(error.code, error.details) from error

    async def _status(self) -> RuntimeStatusResponse:
        reply = await self._ask(
            "runtimeStatus",
            RuntimeStatusRequest().SerializeToString(),
            STATUS_TIMEOUT_SECONDS,
            ((SESSION_KEY, self._session),),
        )
        self.knows_session = reply.metadata(SESSION_KEY) == self._session
        return RuntimeStatusResponse.FromString(reply.message)

    async def _ask(
        self, method: str, message: bytes, timeout_seconds: float, metadata: Metadata = ()
    ) -> Reply:
        round_ = self._round
        try:
            reply = await self._channel.call(
                f"{SERVICE}/{method}", message, timeout_seconds=timeout_seconds, metadata=metadata
            )
        except CallError as error:
            if error.code is not StatusCode.DEADLINE_EXCEEDED:
                self.silent = 0
            elif round_ == self._round:
                self.silent += 1
                self._round += 1
            raise
        self.silent = 0
        return reply

    async def _measure(self, model_id: str) -> Resources:
        request = ModelSizeRequest(modelId=model_id)
        started = time.monotonic()
        try:
            reply = await self._channel.call(
                f"{SERVICE}/modelSize", request.SerializeToString(), timeout_seconds=SIZE_TIMEOUT_SECONDS
            )
        except CallError as error:
            log.warning("size not measured", model=model_id, error=str(error))
            return Resources()
        self.on_measured((time.monotonic() - started) * 1000)
        return Resources(ModelSizeResponse.FromString(reply.message).sizeInBytes)


def _fault(answer: RuntimeStatusResponse) -> str:
    if answer.maxLoadingConcurrency < 1:
        return "maxLoadingConcurrency is 0"
    if answer.modelLoadingTimeoutMs < 100:  # noqa: PLR2004 - the original's bound
        return f"modelLoadingTimeoutMs is {answer.modelLoadingTimeoutMs}, less than 100"
    if answer.defaultModelSizeInBytes < 1:
        return "defaultModelSizeInBytes is 0"
    if not answer.defaultModelSizeInBytes <= answer.capacityInBytes < 1 << 60:
        return f"capacityInBytes is {answer.capacityInBytes}; it must hold a model of the default size"
    return ""


def _terms(answer: RuntimeStatusResponse) -> RuntimeTerms:
    return RuntimeTerms(
        capacity=Resources(answer.capacityInBytes),
        load_slots=answer.maxLoadingConcurrency,
        load_timeout_seconds=answer.modelLoadingTimeoutMs / 1000,
        default_size=Resources(answer.defaultModelSizeInBytes),
        version=answer.runtimeVersion,
        methods={name: tuple(method.idInjectionPath) for name, method in answer.methodInfos.items()},
        allow_any_method=answer.allowAnyMethod or not answer.methodInfos,
    )


async def _accepts(target: str) -> bool:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_SECONDS):
            if target.startswith("unix:"):
                _, writer = await asyncio.open_unix_connection(target.removeprefix("unix:"))
            else:
                host, _, port = target.removeprefix("tcp:").rpartition(":")
                _, writer = await asyncio.open_connection(host, int(port))
    except TimeoutError:
        return True  # somebody listens, but is slow
    except OSError:
        return False
    writer.close()
    return True

"""One run of the suite: the runtime under test, the model that is tried on it, and what was learnt so far."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from grpc import aio

from api.proto.model_runtime_pb2 import (
    LoadModelRequest,
    LoadModelResponse,
    ModelSizeRequest,
    PredictModelSizeRequest,
    RuntimeStatusRequest,
    RuntimeStatusResponse,
    UnloadModelRequest,
)
from api.proto.model_runtime_pb2_grpc import ModelRuntimeStub
from modelmesh.conformance.checks import Failure, NotRun

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from modelmesh.conformance.inference import Inference

T = TypeVar("T")

SESSION = "mm-session"
READY = RuntimeStatusResponse.READY
_POLL_S = 0.1
# A request that has not left this process yet can be neither cancelled nor overtaken.
_ON_ITS_WAY_S = 0.005
# Between two looks at a model that must stay away.
_LOOK_S = 0.05
_LEAST_WATCH_S, _LONGEST_WATCH_S = 0.3, 10.0
_MODEL_WANTED = "needs a model: give --model-path (and --model-type or --model-key)"


@dataclass(frozen=True, slots=True)
class ModelUnderTest:
    """A model that the runtime can load, as the mesh names it; `broken_path` has one that it cannot."""

    path: str
    type: str
    key: str
    broken_path: str = ""

    @classmethod
    def of(cls, path: str, type_name: str, key: str, broken_path: str = "") -> ModelUnderTest:
        """Builds the label and the key that the controller would send; `key` has the key's further fields.

        Raises:
            ValueError: `key` is not a JSON object.
        """
        given = json.loads(key) if key else {}
        if not isinstance(given, dict):
            raise ValueError("it is JSON, but not an object")  # noqa: TRY004 - what the command line says is wrong
        fields: dict[str, Any] = {"model_type": {"name": type_name}} if type_name else {}
        label = f"mt:{type_name}" if type_name else "rt:conformance"
        return cls(path, label, json.dumps(fields | given), broken_path)


@dataclass(slots=True)
class Run:
    """The runtime under test and what the checks share.

    `timeout_s` is the longest that an answer may take, a load's where its terms do not allow more; `start_s`
    how long the runtime may take to be ready. `terms` are what it said then. `first_load_s` is how long
    the first load took, `load_s` the faster of two; `size_tells` and `inference_tells` say what knows loaded
    models from others.
    """

    channel: aio.Channel
    model_given: ModelUnderTest | None = None
    inference: Inference | None = None
    timeout_s: float = 60.0
    start_s: float = 60.0
    terms: RuntimeStatusResponse = field(default_factory=RuntimeStatusResponse)
    first_load_s: float = 0.0
    load_s: float = 0.0
    size_tells: bool = False
    inference_tells: bool = False
    _used: set[str] = field(default_factory=set)

    @property
    def spi(self) -> Any:
        """The runtime's SPI; the stubs' types know only blocking calls."""
        return ModelRuntimeStub(self.channel)

    @property
    def model(self) -> ModelUnderTest:
        """The model to try. Raises NotRun where none was given."""
        if self.model_given is None:
            raise NotRun(_MODEL_WANTED)
        return self.model_given

    @property
    def watch_s(self) -> float:
        """How long a model that must not be loaded is watched: longer than a load that goes on would take."""
        return min(max(2 * self.load_s, _LEAST_WATCH_S), _LONGEST_WATCH_S)

    @property
    def too_fast(self) -> str:
        """What to say where a load was over before anything could come between."""
        return f"the model loads in {self.load_s * 1000:.0f} ms, too fast for it: give one that takes longer"

    async def wait_for_part(self, part: float) -> None:
        """Waits until a load that has begun just now is under way, for a part of a load's time."""
        await asyncio.sleep(max(self.load_s * part, _ON_ITS_WAY_S))

    def new_id(self) -> str:
        """Returns a model id that was not used before, of the form that the controller makes."""
        model_id = f"conformance-{secrets.token_hex(3)}__isvc-{secrets.token_hex(5)}"
        self._used.add(model_id)
        return model_id

    # ------------------------------------------------------------ calls

    async def status(self, session: str) -> tuple[RuntimeStatusResponse, bool]:
        """Asks runtimeStatus; also whether the session was echoed."""
        request, metadata = RuntimeStatusRequest(), ((SESSION, session),)
        call = self.spi.runtimeStatus(request, metadata=metadata, timeout=self.timeout_s)
        answer: RuntimeStatusResponse = await call
        echoed = dict(await call.initial_metadata()).get(SESSION) == session
        return answer, echoed

    async def begin_anew(self, session: str = "") -> tuple[RuntimeStatusResponse, bool]:
        """Does what a mesh does at its start: asks runtimeStatus until READY.

        Raises:
            Failure: it is not READY in time.
        """
        session = session or secrets.token_hex(8)
        deadline = time.monotonic() + self.start_s
        while True:
            try:
                answer, echoed = await self.status(session)
                if answer.status == READY:
                    return answer, echoed
                last = RuntimeStatusResponse.Status.Name(answer.status)
            except aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    raise Failure(
                        f"nobody speaks mmesh.ModelRuntime there: {error.details()}; is it the SPI's?"
                    ) from error
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise Failure(
                        f"runtimeStatus failed with {error.code().name}: {error.details()}; a runtime "
                        "that is not ready says STARTING"
                    ) from error
                last = f"no answer ({error.details()})"
            if time.monotonic() > deadline:
                raise Failure(f"not READY within {self.start_s:g} s; it said last: {last}")
            await asyncio.sleep(_POLL_S)

    def start_load(self, model_id: str, path: str = "") -> aio.UnaryUnaryCall[Any, LoadModelResponse]:
        """Begins to load the model, or one of another `path`, under an id. Raises NotRun without a model."""
        model = self.model
        request = LoadModelRequest(
            modelId=model_id, modelType=model.type, modelPath=path or model.path, modelKey=model.key
        )
        allowed_s = max(self.timeout_s, self.terms.modelLoadingTimeoutMs / 1000)
        call: aio.UnaryUnaryCall[Any, LoadModelResponse] = self.spi.loadModel(request, timeout=allowed_s)
        return call

    async def load(self, model_id: str) -> LoadModelResponse:
        """Loads the model under an id.

        Raises:
            Failure: it was refused.
        """
        return await self.demand(self.start_load(model_id), "loadModel of a whole model")

    async def unload(self, model_id: str) -> None:
        """Unloads a model.

        Raises:
            Failure: that failed; NOT_FOUND is as good as success.
        """
        code, words = await self.outcome(self.start_unload(model_id))
        if code not in {grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND}:
            raise Failure(f"unloadModel failed with {code.name}: {words}")

    def start_unload(self, model_id: str) -> Awaitable[object]:
        """Begins to unload a model."""
        request = UnloadModelRequest(modelId=model_id)
        call: Awaitable[object] = self.spi.unloadModel(request, timeout=self.timeout_s)
        return call

    async def size(self, model_id: str) -> int:
        """Asks modelSize; AioRpcError where it fails."""
        answer = await self.spi.modelSize(ModelSizeRequest(modelId=model_id), timeout=self.timeout_s)
        return int(answer.sizeInBytes)

    async def predict(self, model_id: str) -> int:
        """Asks predictModelSize; AioRpcError where it fails."""
        model = self.model
        request = PredictModelSizeRequest(
            modelId=model_id, modelType=model.type, modelPath=model.path, modelKey=model.key
        )
        return int((await self.spi.predictModelSize(request, timeout=self.timeout_s)).sizeInBytes)

    def infer(self, inference: Inference, model_id: str) -> Awaitable[bytes]:
        """Asks a model, its id where the runtime's methodInfos want it."""
        info = self.terms.methodInfos.get(inference.method)
        return inference.ask(model_id, info.idInjectionPath if info else (), timeout_s=self.timeout_s)

    async def demand(self, call: Awaitable[T], what: str) -> T:
        """Awaits a call that must succeed. Raises Failure where it does not."""
        try:
            return await call
        except aio.AioRpcError as error:
            raise Failure(f"{what} failed with {error.code().name}: {error.details()}") from error

    async def outcome(self, call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
        """Awaits a call and returns its code and words. Raises Failure where no answer comes in time."""
        try:
            await call
        except aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise Failure(f"no answer within {self.timeout_s:g} s") from error
            return error.code(), error.details() or ""
        return grpc.StatusCode.OK, ""

    # ------------------------------------------------------------ what is loaded

    @contextlib.asynccontextmanager
    async def loaded(self) -> AsyncIterator[str]:
        """Loads the model under a new id and unloads it at the end."""
        async with self.fresh() as model_id:
            await self.load(model_id)
            yield model_id

    @contextlib.asynccontextmanager
    async def fresh(self) -> AsyncIterator[str]:
        """Gives a new id and unloads it at the end, whatever became of it."""
        model_id = self.new_id()
        try:
            yield model_id
        finally:
            with contextlib.suppress(aio.AioRpcError):
                await self.start_unload(model_id)

    @property
    def can_see(self) -> bool:
        """Whether something tells if a model is loaded."""
        return self.size_tells or self.inference_tells

    async def learn_to_see(self, loaded: str) -> None:
        """Finds out what tells a loaded model from one that is not."""
        absent = self.new_id()

        async def tells(ask: Callable[[str], Awaitable[object]]) -> bool:
            known, _ = await self.outcome(ask(loaded))
            unknown, _ = await self.outcome(ask(absent))
            return known is grpc.StatusCode.OK is not unknown

        self.size_tells = await tells(self.size)
        if self.inference is not None:
            self.inference_tells = await tells(partial(self.infer, self.inference))

    async def is_loaded(self, model_id: str) -> bool:
        """Whether the runtime has a model: by inference, by modelSize, or by both.

        Raises:
            NotRun: nothing tells.
        """
        if not self.can_see:
            raise NotRun(
                "nothing tells whether a model is loaded: give --infer, or have modelSize fail where none is"
            )
        code = grpc.StatusCode.NOT_FOUND
        if self.inference is not None and self.inference_tells:
            code, _ = await self.outcome(self.infer(self.inference, model_id))
        if code is not grpc.StatusCode.OK and self.size_tells:
            code, _ = await self.outcome(self.size(model_id))
        return code is grpc.StatusCode.OK

    async def demand_absent(self, model_id: str, when: str) -> None:
        """Watches for some time that a model is not loaded. Raises Failure where it is, or comes back."""
        deadline = time.monotonic() + self.watch_s
        while True:
            if await self.is_loaded(model_id):
                raise Failure(f"the model is loaded {when}")
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(_LOOK_S)

    async def demand_present(self, model_id: str, when: str) -> None:
        """Raises Failure where a model is not loaded."""
        if not await self.is_loaded(model_id):
            raise Failure(f"the model is not loaded {when}")

    async def clean_up(self) -> None:
        """Unloads whatever a check may have left."""
        await asyncio.gather(*map(self.start_unload, self._used), return_exceptions=True)

"""The adapter of TorchServe: model archives (`.mar`), each with its own handler.

TorchServe finds archives in one folder, its model store, and runs each model in worker processes. Its
management API answers with JSON inside of gRPC messages.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar, TypeVar

import grpc
import msgspec
from google.protobuf.empty_pb2 import Empty
from grpc import aio

from adapters.endpoints import grpc_target
from adapters.environment import Reader
from adapters.errors import InvalidModelError, ServerError, ServerUnreachableError
from adapters.files import folder_name, remove, write_whole
from adapters.sdk import V2_METHODS, GrpcServer, Model
from adapters.sdk.grpc_server import CHANNEL_OPTIONS
from api.proto.torchserve_pb2 import (
    DescribeModelRequest,
    ListModelsRequest,
    ManagementResponse,
    RegisterModelRequest,
    UnregisterModelRequest,
)
from api.proto.torchserve_pb2_grpc import ManagementAPIsServiceStub

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from adapters.sdk.settings import Settings

_T = TypeVar("_T")

_CONFIG_FILE = "mmconfig.properties"
_INFERENCE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
_QUICK_S = 5.0
_PAGE = 500
# TorchServe looks at the memory of its workers every `metric_time_interval`, 10 seconds.
_MEASURE_S, _MEASURE_EVERY_S = 17.0, 1.0
_INT32 = 2**31 - 1


class _Worker(msgspec.Struct, rename="camel"):
    memory_usage: int = 0


class _Described(msgspec.Struct):
    """A version of a model, as DescribeModel tells it."""

    workers: list[_Worker] = []


class _Listed(msgspec.Struct, rename="camel"):
    model_name: str


class _Page(msgspec.Struct, rename="camel"):
    models: list[_Listed]
    next_page_token: str | int | None = None


class _Health(msgspec.Struct):
    status: str = ""


class TorchServeAdapter(GrpcServer):
    """Registers archives with TorchServe.

    `REQUEST_BATCH_SIZE` (1 where unset or 0) and `MAX_BATCH_DELAY_MS` say how TorchServe gathers requests.
    The latter's old name, `MAX_BATCH_DELAY_SECS`, was always in milliseconds too.
    """

    title = "TorchServe"
    folder_name = "_torchserve_models"
    methods: ClassVar[Mapping[str, Sequence[int]]] = {f"{_INFERENCE}/Predictions": [1]} | dict(V2_METHODS)
    # An archive is compressed, and each worker has a Python of its own.
    size_multiplier = 2.75
    default_port = 7071
    default_data_port = 7070
    measures_later = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        read = Reader(settings.environment)
        self._batch_size = read.number("REQUEST_BATCH_SIZE", 0, least=0, most=_INT32)
        name = "MAX_BATCH_DELAY_MS"
        if name not in settings.environment and "MAX_BATCH_DELAY_SECS" in settings.environment:
            name = "MAX_BATCH_DELAY_SECS"
        self._batch_delay_ms = read.number(name, 0, least=0, most=_INT32)
        read.finish()
        self._management = ManagementAPIsServiceStub(self.channel)
        target = grpc_target(settings.data_endpoint, "RUNTIME_DATA_ENDPOINT")
        self._inference = aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        # Its answer has the same form as those of the management service: one text.
        self._ping = self._inference.unary_unary(
            f"/{_INFERENCE}/Ping",
            request_serializer=Empty.SerializeToString,
            response_deserializer=ManagementResponse.FromString,
        )

    @property
    def kept(self) -> Collection[Path]:
        """The server's configuration."""
        return (self.folder / _CONFIG_FILE,)

    def prepare(self) -> None:
        """Writes the configuration that the server's container waits for.

        8080, TorchServe's own port for inference, is the mesh's. Requests come through the mesh only, so no
        token protects them, and without the model API nothing could be loaded.
        """
        properties = {
            "enable_envvars_config": "true",
            "model_store": str(self.folder),
            "metric_time_interval": "10",
            "inference_address": "http://127.0.0.1:8083",
            "number_of_netty_threads": "8",
            "job_queue_size": "512",
            "disable_token_authorization": "true",
            "enable_model_api": "true",
        }
        text = "".join(f"{name}={value}\n" for name, value in properties.items())
        write_whole(self.folder / _CONFIG_FILE, text.encode(), mode=0o664)

    async def close(self) -> None:
        """Closes both connections."""
        await super().close()
        await self._inference.close()

    async def is_ready(self) -> bool:
        """Whether inference is healthy and models can be managed."""
        try:
            health = await self.ask(self._ping(Empty(), timeout=_QUICK_S))
            await self.loaded()
            return _parsed(health, _Health).status == "Healthy"
        except (ServerError, ServerUnreachableError):
            return False

    async def loaded(self) -> list[str]:
        """Asks for all pages of the list of models."""
        names: list[str] = []
        token: str | int | None = 0
        while token is not None:
            request = ListModelsRequest(limit=_PAGE, next_page_token=int(token))
            answer = await self.ask(self._management.ListModels(request, timeout=_QUICK_S))
            page = _parsed(answer, _Page)
            names += [model.model_name for model in page.models]
            token = page.next_page_token
        return names

    async def version(self) -> str:
        """TorchServe does not tell its version by gRPC."""
        return ""

    def lay_out(self, model: Model, folder: Path) -> None:
        """Links the archive into the model store, where no archive may lie deeper than its first level.

        Raises:
            InvalidModelError: the model is no file.
        """
        if not model.path.exists():
            raise InvalidModelError(f"model {model.id}: there is nothing at {model.path}")
        if not model.path.is_file():
            raise InvalidModelError(
                f"{model.path.name} is a folder, and TorchServe loads model archives: the storage path must "
                "lead to one .mar file (torch-model-archiver makes it)",
            )
        archive = folder.with_name(_archive(model.id))
        remove(archive)
        archive.symlink_to(model.path)

    async def load(self, model: Model) -> None:
        """Registers the archive and returns when its workers run."""
        request = RegisterModelRequest(
            model_name=model.id,
            url=_archive(model.id),
            synchronous=True,
            initial_workers=self.settings.per_model_concurrency or 1,
            batch_size=self._batch_size,
            max_batch_delay=self._batch_delay_ms,
        )
        await self.ask_to_load(self._management.RegisterModel(request), what=model.path.name)

    async def unload(self, model_id: str) -> None:
        """Unregisters the model and removes its link."""
        try:
            await self.ask(self._management.UnregisterModel(UnregisterModelRequest(model_name=model_id)))
        except ServerError as error:
            if error.status is not grpc.StatusCode.NOT_FOUND:
                raise ServerError(error.status, f"TorchServe could not unload the model: {error}") from error
        await asyncio.to_thread(remove, self.folder / _archive(model_id))

    async def measured_size(self, model_id: str) -> int | None:
        """Memory of the model's workers and a tenth, once TorchServe has looked at each of them."""
        request = DescribeModelRequest(model_name=model_id, model_version="all")
        try:
            async with asyncio.timeout(_MEASURE_S):
                while True:
                    answer = await self.ask(self._management.DescribeModel(request, timeout=_QUICK_S))
                    workers = [
                        worker for each in _parsed(answer, list[_Described]) for worker in each.workers
                    ]
                    used = [worker.memory_usage for worker in workers]
                    if used and min(used) > 0:
                        return sum(used) * 11 // 10
                    await asyncio.sleep(_MEASURE_EVERY_S)
        except TimeoutError:
            return None


def _archive(model_id: str) -> str:
    """Name of the model's archive in the store; no folder of a model begins with an underscore."""
    return f"_{folder_name(model_id)}.mar"


def _parsed(answer: ManagementResponse, form: type[_T]) -> _T:
    try:
        return msgspec.json.decode(answer.msg, type=form)
    except msgspec.MsgspecError as error:
        raise ServerError(
            grpc.StatusCode.INTERNAL, f"TorchServe's answer is not understood: {error}"
        ) from error

"""The adapter of OpenVINO Model Server: OpenVINO IR and ONNX models.

The server reads its models from one configuration file and reads it again when told to by REST; its answer,
or its status after a failure, says how each model fared. So loads and unloads are changes of that file, and
what arrives while the server reloads goes into the next reload together.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import aiohttp
import grpc
import msgspec

from adapters.environment import Reader
from adapters.errors import InvalidModelError, ServerError, ServerUnreachableError
from adapters.files import folder_name, write_whole
from adapters.sdk import V2_METHODS, Model, ServerAdapter
from adapters.threads import in_thread
from adapters.versions import newest_version

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from adapters.sdk.settings import Settings

_QUICK_S = 5.0
_POLL_S = 0.1
# A server that died and came back within this time is noticed by its lost connection.
_WATCH_S = 1.0
_OK = 300


class _Error(msgspec.Struct):
    error_code: str = ""
    error_message: str = ""


class _Version(msgspec.Struct):
    state: str
    status: _Error = msgspec.field(default_factory=_Error)


class _Model(msgspec.Struct):
    model_version_status: list[_Version] = []


_Status = dict[str, _Model]


class OpenVINOAdapter(ServerAdapter):
    """Writes the server's configuration and has it read.

    `MODEL_CONFIG_FILE` is the file that the server was started with, `OVMS_RELOAD_TIMEOUT` (seconds, also
    written `30s`) bounds a reload. `BATCH_WAIT_TIME_MIN` and `BATCH_WAIT_TIME_MAX` of the original have no
    effect.
    """

    title = "OpenVINO Model Server"
    folder_name = "_ovms_models"
    methods: ClassVar[Mapping[str, Sequence[int]]] = {
        "tensorflow.serving.PredictionService/Predict": [1, 1],
    } | dict(V2_METHODS)
    default_port = 8888

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        environment = settings.environment
        self._file = Path(environment.get("MODEL_CONFIG_FILE") or settings.root / "model_config_list.json")
        read = Reader(
            {
                name: value.removesuffix("s") if name == "OVMS_RELOAD_TIMEOUT" else value
                for name, value in environment.items()
            },
        )
        self._reload_s = read.factor("OVMS_RELOAD_TIMEOUT", 30.0)
        read.finish()
        self._url = f"http://127.0.0.1:{settings.server_port}/v1/config"
        self._session: aiohttp.ClientSession | None = None
        self._wanted: dict[str, str] = {}
        self._changes = self._applied = 0
        self._reloading = asyncio.Lock()

    @property
    def kept(self) -> Collection[Path]:
        """The server's configuration."""
        return (self._file,)

    def prepare(self) -> None:
        """Writes a configuration without models: the server needs the file, and is purged anyway."""
        self._write()

    async def close(self) -> None:
        """Closes the connections."""
        if self._session:
            await self._session.close()

    async def is_ready(self) -> bool:
        """Whether the server tells the status of its models."""
        try:
            await self._status()
        except (ServerError, ServerUnreachableError):
            return False
        return True

    async def wait_lost(self) -> None:
        """Keeps a connection open, whose end is the end of the server's process, or of its patience."""
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.settings.server_port)
            try:
                await reader.read()
            finally:
                writer.close()
        # A server that closes idle connections is asked no more often than this.
        await asyncio.sleep(_WATCH_S)

    async def loaded(self) -> list[str]:
        """Models of which a version is not at its end."""
        return [name for name, model in (await self._status()).items() if not _gone(model)]

    async def version(self) -> str:
        """The server does not tell its version in this API."""
        return ""

    def lay_out(self, model: Model, folder: Path) -> None:
        """Links the model as `VERSION/…`: the newest version folder, or the whole as version 1.

        Raises:
            InvalidModelError: no such files.
        """
        if not model.path.exists():
            raise InvalidModelError(f"model {model.id}: there is nothing at {model.path}")
        if model.path.is_file():
            (folder / "1").mkdir(mode=0o755)
            name = "model.onnx" if model.type == "onnx" else model.path.name
            (folder / "1" / name).symlink_to(model.path)
            return
        newest = newest_version(model.path.iterdir())
        (folder / (newest.name if newest else "1")).symlink_to(newest or model.path)

    async def load(self, model: Model) -> None:
        """Adds the model to the configuration and returns when the server has it available."""
        self._wanted[model.id] = str(self.folder / folder_name(model.id))
        try:
            status = await self._apply()
            versions = status.get(model.id, _Model()).model_version_status
            if any(version.state == "AVAILABLE" for version in versions):
                return
        except BaseException:
            self._wanted.pop(model.id, None)
            raise
        self._wanted.pop(model.id, None)
        raise ServerError(
            grpc.StatusCode.FAILED_PRECONDITION if versions else grpc.StatusCode.INTERNAL,
            f"{self.title} could not load {model.path.name} as a model of type {model.type or 'unknown'} "
            f"(is it whole, and of this type?): {_reasons(versions)}",
        )

    async def unload(self, model_id: str) -> None:
        """Takes the model out of the configuration and returns when the server holds it no more."""
        known = self._wanted.pop(model_id, None) is not None
        status = await self._status()
        if not known and _gone(status.get(model_id)):
            return
        status = await self._apply()
        deadline = asyncio.get_running_loop().time() + self._reload_s
        while not _gone(status.get(model_id)):
            if asyncio.get_running_loop().time() > deadline:
                raise ServerError(
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                    f"{self.title} did not unload the model in {self._reload_s:g} s",
                )
            await asyncio.sleep(_POLL_S)
            status = await self._status()

    async def _apply(self) -> _Status:
        """Returns the server's status after a reload that has all changes up to this call."""
        self._changes += 1
        mine = self._changes
        async with self._reloading:
            if self._applied < mine:
                changes = self._changes
                await in_thread(self._write)
                status = await self._reload()
                self._applied = changes
                return status
        return await self._status()

    def _write(self) -> None:
        models = [{"config": {"name": name, "base_path": path}} for name, path in self._wanted.copy().items()]
        write_whole(self._file, msgspec.json.encode({"model_config_list": models}), mode=0o644)

    async def _reload(self) -> _Status:
        try:
            return await self._ask("POST", f"{self._url}/reload", self._reload_s)
        except ServerError:
            # One bad model fails the reload as a whole; how each fared is in the status.
            return await self._status()

    async def _status(self) -> _Status:
        return await self._ask("GET", self._url, _QUICK_S)

    async def _ask(self, method: str, url: str, seconds: float) -> _Status:
        self._session = self._session or aiohttp.ClientSession(trust_env=False)
        limit = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self._session.request(method, url, timeout=limit) as answer:
                body = await answer.read()
                if answer.status < _OK:
                    return msgspec.json.decode(body, type=_Status)
                text = body.decode(errors="replace").strip()
                raise ServerError(
                    grpc.StatusCode.INTERNAL, f"{self.title} answers {answer.status}: {text or 'nothing'}"
                )
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise ServerUnreachableError(f"{self.title} gives no answer: {reason}") from error
        except msgspec.MsgspecError as error:
            raise ServerError(
                grpc.StatusCode.INTERNAL, f"{self.title}'s answer is not understood: {error}"
            ) from error


def _reasons(versions: list[_Version]) -> str:
    """Why versions failed; the server mostly repeats the code in place of a message."""
    failed = [version.status for version in versions if version.state != "END"]
    words = [
        error.error_code
        if error.error_message in {"", error.error_code}
        else f"{error.error_code} {error.error_message}"
        for error in failed
    ]
    told = any(error.error_message not in {"", error.error_code} for error in failed)
    return "; ".join([*filter(None, words), *([] if told else ["its log says why"])])


def _gone(model: _Model | None) -> bool:
    return model is None or all(version.state == "END" for version in model.model_version_status)

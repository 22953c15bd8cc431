"""Models that the process's own settings name: registered when it starts, before it says that it is ready.

The settings are JSON lists of `{modelId, modelInfo: {type, path, key}, vModelId?, retainAfterTransition?,
ensureLoaded?}`, inline and in a file; both count.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from api.proto.model_mesh_pb2 import ModelStatusInfo
from mesh.errors import ConfigError, StartError
from mesh.models import Models
from mesh.status import StatusReporter
from mesh.vmodels import NewModel, SetVModel, VModels

log = structlog.get_logger(__name__)


class _Info(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    path: str = ""
    key: str = ""


class StaticModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """One model to register."""

    model_id: str
    model_info: _Info
    v_model_id: str = ""
    """A vmodel that shall have it as its target."""
    retain_after_transition: bool = False
    """Keep the model when that vmodel moves on."""
    ensure_loaded: bool = False
    """The process is not ready, and gives up, before the model is loaded."""


def read_static_models(inline: str, path: Path | None) -> tuple[StaticModel, ...]:
    """Reads both settings. Raises ConfigError."""
    try:
        from_file = path.read_bytes() if path else b""
    except OSError as error:
        raise ConfigError(f"models to register cannot be read from {path}: {error.strerror}") from error
    return (*_parse(inline.encode(), "MM_AUTO_REGISTER_MODELS"), *_parse(from_file, str(path)))


async def register_static_models(
    models: Sequence[StaticModel], registered: Models, vmodels: VModels, status: StatusReporter
) -> None:
    """Registers the models and waits for those that must be loaded.

    Raises StartError where one of these is not loaded, and MeshError.
    """
    for model in models:
        info = NewModel(model.model_info.type, model.model_info.path, model.model_info.key)
        if model.v_model_id:
            await vmodels.set(
                SetVModel(
                    model.v_model_id,
                    model.model_id,
                    info,
                    auto_delete=not model.retain_after_transition,
                    load_now=model.ensure_loaded,
                )
            )
        else:
            await registered.register(model.model_id, info, load_now=model.ensure_loaded, last_used=0)
    wanted = [model.model_id for model in models if model.ensure_loaded]
    await asyncio.gather(*(registered.want(model_id, last_used=0, sync=True) for model_id in wanted))
    for model_id in wanted:
        info_now = status.model(model_id)
        if info_now.status != ModelStatusInfo.LOADED:
            why = "; ".join(info_now.errors) or ModelStatusInfo.ModelStatus.Name(info_now.status)
            raise StartError(f"model {model_id}, which must be loaded before the start, is not: {why}")
    if models:
        log.info("models of the settings registered", models=len(models), loaded=len(wanted))


def _parse(raw: bytes, where: str) -> list[StaticModel]:
    if not raw.strip():
        return []
    try:
        models = msgspec.json.decode(raw, type=list[StaticModel])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"models to register cannot be read from {where}: {error}") from error
    for model in models:
        if not model.model_id or not model.model_info.type:
            raise ConfigError(f"models to register in {where}: each needs a modelId and a modelInfo.type")
    return models

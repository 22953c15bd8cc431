"""The adapter of MLServer: scikit-learn, XGBoost and LightGBM models, and whatever a custom image implements.

MLServer wants a folder for each model with a `model-settings.json` that names it; the files themselves are
linked.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc
import msgspec

from adapters.environment import Reader
from adapters.errors import InvalidModelError
from adapters.files import secure_join, write_whole
from adapters.growth import ProcessGrowth
from adapters.sdk import Model, V2Server
from adapters.sdk.schema import read_schema

if TYPE_CHECKING:
    from pathlib import Path

    from adapters.sdk.settings import Settings

JSON = dict[str, Any]

_SETTINGS_FILE = "model-settings.json"

# Other types leave the field out: the image then says what runs them, by MLSERVER_MODEL_IMPLEMENTATION.
_IMPLEMENTATIONS = {
    "lightgbm": "mlserver_lightgbm.LightGBMModel",
    "mllib": "mlserver_mllib.MLlibModel",
    "sklearn": "mlserver_sklearn.SKLearnModel",
    "xgboost": "mlserver_xgboost.XGBoostModel",
}


class MLServerAdapter(V2Server):
    """Lays models out for MLServer.

    `RUNTIME_METRICS_PORT` is the port of MLServer's metrics, 0 (the default) for none. An MLServer without
    parallel workers tells its own memory there, and a model that takes clearly more than estimated is
    measured by it.
    """

    title = "MLServer"
    folder_name = "_mlserver_models"
    # MLServer answers NOT_FOUND, and INVALID_ARGUMENT before 1.4.
    unknown_model_codes = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        read = Reader(settings.environment)
        self._growth = ProcessGrowth(read.port("RUNTIME_METRICS_PORT", 0, least=0))
        read.finish()
        self._measured: dict[str, int] = {}

    async def load(self, model: Model) -> None:
        """Has the model loaded, and measures it where the server tells its memory."""
        self._measured.pop(model.id, None)
        estimate = int((model.disk_bytes or 0) * self.settings.size_multiplier)
        async with self._growth.measured(model.type, estimate) as told:
            await super().load(model)
        if told.bytes:
            self._measured[model.id] = told.bytes

    async def unload(self, model_id: str) -> None:
        """Has the model unloaded."""
        self._measured.pop(model_id, None)
        with self._growth.change():
            await super().unload(model_id)

    async def measured_size(self, model_id: str) -> int | None:
        """Bytes by which the server grew, where that was more than estimated."""
        return self._measured.get(model_id)

    def lay_out(self, model: Model, folder: Path) -> None:
        """Links the model's files and writes its settings.

        A folder that brings settings is MLServer's own form: all is linked one to one and the settings are
        rewritten. A file, or a folder without settings, is linked under its name, and the settings point at
        the link.

        Raises:
            InvalidModelError: no such files, or settings or a schema that cannot be used.
        """
        native = model.path / _SETTINGS_FILE
        if not model.path.exists():
            raise InvalidModelError(f"model {model.id}: there is nothing at {model.path}")
        if native.is_file():
            settings, mode = _rewritten(native, model, folder), native.stat().st_mode & 0o777
            for entry in model.path.iterdir():
                if entry.name != _SETTINGS_FILE:
                    (folder / entry.name).symlink_to(entry)
        else:
            link = folder / model.path.name
            link.symlink_to(model.path)
            settings, mode = _generated(model, link), 0o664
        if model.schema:
            settings |= _tensors(model.schema)
        # Last, and all at once: MLServer lists every settings file it finds whenever it loads any model.
        write_whole(
            folder / _SETTINGS_FILE, json.dumps(settings, indent=2, ensure_ascii=False).encode(), mode=mode
        )


def _generated(model: Model, link: Path) -> JSON:
    implementation = _IMPLEMENTATIONS.get(model.type)
    return {
        "name": model.id,
        **({"implementation": implementation} if implementation else {}),
        "parameters": {"uri": str(link)},
    }


def _rewritten(file: Path, model: Model, folder: Path) -> JSON:
    """The model's own settings under the id that the mesh uses, with its uri inside the laid out folder."""
    try:
        settings = json.loads(file.read_bytes())
    except ValueError as error:
        raise InvalidModelError(f"the model's {_SETTINGS_FILE} is not JSON: {error}") from error
    parameters = settings.get("parameters") if isinstance(settings, dict) else None
    uri = parameters.get("uri") if isinstance(parameters, dict) else None
    if (
        not isinstance(settings, dict)
        or not isinstance(parameters, dict | None)
        or not isinstance(uri, str | None)
    ):
        raise InvalidModelError(
            f"the model's {_SETTINGS_FILE} must be an object, its parameters too, and uri a text"
        )
    rewritten = settings | {"name": model.id}
    if isinstance(parameters, dict) and uri is not None and "://" not in uri:  # a URL is no file of the model
        rewritten["parameters"] = parameters | {"uri": str(secure_join(folder, uri))}
    return rewritten


def _tensors(schema_file: Path) -> JSON:
    schema = read_schema(schema_file)
    sides = {"inputs": schema.inputs, "outputs": schema.outputs}
    return {
        side: [msgspec.structs.asdict(tensor) for tensor in tensors]
        for side, tensors in sides.items()
        if tensors is not None
    }

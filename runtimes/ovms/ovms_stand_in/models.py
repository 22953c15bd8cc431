"""The models of the configuration file: loaded, retired and asked."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import openvino

from ovms_stand_in.datatypes import BY_OPENVINO, Datatype
from ovms_stand_in.errors import ReloadError, RequestError, invalid, not_found

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

log = logging.getLogger(__name__)

_MAPPING_FILE = "mapping_config.json"


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output: -1 in `shape` is a dimension of any length; `port` is OpenVINO's own."""

    datatype: Datatype
    shape: list[int]
    port: Any


@dataclass(slots=True)
class Version:
    """One version of a model, in the states that the server's status tells."""

    number: int
    folder: Path
    state: str = "LOADING"
    error: str = "OK"
    running: int = 0
    compiled: Any = None
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)

    def load(self, core: openvino.Core) -> None:
        """Compiles the model; takes seconds and blocks. Anything that OpenVINO raises goes through."""
        compiled = core.compile_model(core.read_model(_model_file(self.folder)), "CPU")
        mapping = self.folder / _MAPPING_FILE
        names = json.loads(mapping.read_text()) if mapping.is_file() else {}
        self.inputs = _described(compiled.inputs, names.get("inputs", {}))
        self.outputs = _described(compiled.outputs, names.get("outputs", {}))
        self.compiled = compiled

    def retire(self) -> None:
        """Lets the model go as soon as no request uses it."""
        self.state = "UNLOADING" if self.running else "END"
        if not self.running:
            self.compiled = None


class Models:
    """All models by their names; the latest version of each, and those that have ended."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._core = openvino.Core()
        self._reloading = asyncio.Lock()
        self._read: bytes | None = None
        self._versions: dict[str, list[Version]] = {}

    def status(self) -> dict[str, Any]:
        """The status of all models, as the server's REST API tells it."""
        return {
            name: {
                "model_version_status": [
                    {
                        "version": str(version.number),
                        "state": version.state,
                        # The server tells no reason here: the message repeats the code.
                        "status": {"error_code": version.error, "error_message": version.error},
                    }
                    for version in versions
                ]
            }
            for name, versions in self._versions.items()
        }

    async def reload(self) -> bool:
        """Makes the models what the configuration says; whether anything had to change.

        Raises:
            ReloadError: the file cannot be used, and nothing has changed, or a model cannot, and the others
                have.
        """
        async with self._reloading:
            try:
                content = await asyncio.to_thread(self._config.read_bytes)
            except OSError as error:
                raise ReloadError("Config file not found or cannot open.") from error
            failed_before = any(each[-1].state == "LOADING" for each in self._versions.values() if each)
            if content == self._read and not failed_before:
                return False
            folders = _folders(content)
            self._read = content
            for name in set(self._versions) - set(folders):
                for version in self._versions[name]:
                    if version.state in {"AVAILABLE", "LOADING"}:
                        version.retire()
            loaded = [await self._follow(name, folder) for name, folder in folders.items()]
            if not all(loaded):
                raise ReloadError("Reloading config file failed. Check server logs for more info.")
            return True

    async def infer(
        self, name: str, number: int | None, inputs: Mapping[str, np.ndarray], wanted: list[str]
    ) -> tuple[Version, dict[str, np.ndarray]]:
        """Computes the wanted outputs, all where none is named.

        Raises:
            RequestError: no such model, or inputs that it does not take.
        """
        version = self.find(name, number)
        _check(version.inputs, inputs)
        for output in wanted:
            if output not in version.outputs:
                raise invalid(f"Unexpected output - {output} is none of {', '.join(version.outputs)}")
        version.running += 1
        try:
            return version, await asyncio.to_thread(_computed, version, inputs, wanted)
        except RuntimeError as error:
            raise RequestError(grpc.StatusCode.INTERNAL, f"OpenVINO could not compute: {error}") from error
        finally:
            version.running -= 1
            if version.state == "UNLOADING" and not version.running:
                version.retire()

    def find(self, name: str, number: int | None) -> Version:
        """A version that can be asked; the latest where no number is given.

        Raises:
            RequestError: NOT_FOUND, or UNAVAILABLE while it is loaded.
        """
        if name not in self._versions:
            raise not_found("Model with requested name is not found")
        for version in reversed(self._versions[name]):
            if number in {None, version.number}:
                if version.state == "AVAILABLE":
                    return version
                if version.state == "LOADING":
                    raise RequestError(
                        grpc.StatusCode.UNAVAILABLE, "Model with requested version is not loaded yet"
                    )
                raise not_found("Model with requested version is retired")
        raise not_found("Model with requested version is not found")

    async def _follow(self, name: str, folder: Path) -> bool:
        """Loads the newest version below `folder`, unless it is loaded; False where that fails."""
        versions = self._versions.setdefault(name, [])
        present = versions[-1] if versions else None
        newest = _newest(folder)
        if not newest:
            log.error("model %s: no version folder in %s", name, folder)
            return False
        if present and present.state == "AVAILABLE" and present.folder == newest.folder:
            return True
        # A version that is there again takes the place of what it was.
        versions[:] = [each for each in versions if each.number != newest.number]
        versions.append(newest)
        try:
            await asyncio.to_thread(newest.load, self._core)
        except Exception:  # OpenVINO's errors share no base, and one bad model must not end the server
            log.exception("model %s cannot be loaded", name)
            newest.error = "UNKNOWN"
            return False
        newest.state = "AVAILABLE"
        if present and present is not newest and present.state == "AVAILABLE":
            present.retire()
        return True


def _folders(content: bytes) -> dict[str, Path]:
    try:
        listed = json.loads(content)["model_config_list"]
        return {each["config"]["name"]: Path(each["config"]["base_path"]) for each in listed}
    except (ValueError, KeyError, TypeError) as error:
        log.exception("the configuration cannot be read")
        raise ReloadError("Reloading config file failed. Check server logs for more info.") from error


def _newest(folder: Path) -> Version | None:
    """The version whose folder has the largest number."""
    folders = [each for each in folder.glob("*") if each.name.isdecimal() and each.is_dir()]
    newest = max(folders, key=lambda each: int(each.name), default=None)
    return newest and Version(int(newest.name), newest)


def _model_file(folder: Path) -> Path:
    for pattern in ("*.xml", "*.onnx", "*.pdmodel"):
        for file in sorted(folder.glob(pattern)):
            return file
    raise FileNotFoundError(f"no .xml, .onnx or .pdmodel file in {folder}")


def _described(ports: list[Any], names: Mapping[str, str]) -> dict[str, Tensor]:
    tensors = {}
    for port in ports:
        kind = port.element_type.get_type_name()
        if kind not in BY_OPENVINO:
            raise ValueError(f"tensor {port.any_name} has elements of type {kind}, which is not there")
        shape = [int(size.get_length()) if size.is_static else -1 for size in port.partial_shape]
        tensors[names.get(port.any_name, port.any_name)] = Tensor(BY_OPENVINO[kind], shape, port)
    return tensors


def _check(described: Mapping[str, Tensor], inputs: Mapping[str, np.ndarray]) -> None:
    if len(inputs) != len(described):
        raise invalid(f"Invalid number of inputs - Expected: {len(described)}; Actual: {len(inputs)}")
    for name, tensor in described.items():
        if name not in inputs:
            raise invalid(f"Missing input with specific name - Required input: {name}")
        given = inputs[name]
        if given.dtype != tensor.datatype.numpy:
            raise invalid(f"Invalid input precision - Expected: {tensor.datatype.v2}; Actual: {given.dtype}")
        fits = len(given.shape) == len(tensor.shape) and all(
            want in {-1, have} for want, have in zip(tensor.shape, given.shape, strict=True)
        )
        if not fits:
            raise invalid(f"Invalid input shape - Expected: {tensor.shape}; Actual: {list(given.shape)}")


def _computed(version: Version, inputs: Mapping[str, np.ndarray], wanted: list[str]) -> dict[str, np.ndarray]:
    request = version.compiled.create_infer_request()
    request.infer({version.inputs[name].port: value for name, value in inputs.items()})
    return {
        # The tensor's memory goes with the request.
        name: request.get_tensor(tensor.port).data.copy()
        for name, tensor in version.outputs.items()
        if not wanted or name in wanted
    }

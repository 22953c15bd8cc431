"""The adapter of the dictionary server, written with the SDK: `modelmesh adapter adapter:DictionaryAdapter`.

The SDK serves the SPI, queues what happens to a model, honours cancellation, empties the server before READY
and after each of its restarts. What is left to say is below.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import dictionary_pb2
import dictionary_pb2_grpc
import grpc

from adapters.errors import InvalidModelError, ServerError, ServerUnreachableError
from adapters.files import folder_name
from adapters.sdk import GrpcServer, Model, Settings

if TYPE_CHECKING:
    from pathlib import Path

_QUICK_S = 5.0


class DictionaryAdapter(GrpcServer):
    """Speaks to the server's Admin service."""

    title = "The dictionary server"
    folder_name = "_dictionaries"
    methods = {"dictionary.Dictionary/Define": [2]}  # noqa: RUF012 - field `dictionary` gets the model's id
    default_port = 9000

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._admin = dictionary_pb2_grpc.AdminStub(self.channel)
        self._sizes: dict[str, int] = {}

    async def is_ready(self) -> bool:
        """It is ready when it can list what is open."""
        try:
            await self.loaded()
        except (ServerError, ServerUnreachableError):
            return False
        return True

    async def loaded(self) -> list[str]:
        """Names of what is open."""
        return list((await self.ask(self._admin.List(dictionary_pb2.ListRequest(), timeout=_QUICK_S))).names)

    async def version(self) -> str:
        """Is in the same answer."""
        return (await self.ask(self._admin.List(dictionary_pb2.ListRequest(), timeout=_QUICK_S))).version

    def lay_out(self, model: Model, folder: Path) -> None:
        """Links the file under a name that `load` knows; what cannot be a dictionary is refused here."""
        if not model.path.is_file():
            raise InvalidModelError(f"a dictionary is one JSON file; {model.path.name} is not a file")
        try:
            json.loads(model.path.read_bytes())
        except ValueError as error:
            raise InvalidModelError(f"{model.path.name} is not JSON: {error}") from error
        (folder / "words.json").symlink_to(model.path)

    async def load(self, model: Model) -> None:
        """Has it open the file; the answer tells the size."""
        path = self.folder / folder_name(model.id) / "words.json"
        request = dictionary_pb2.OpenRequest(name=model.id, path=str(path))
        self._sizes[model.id] = (
            await self.ask_to_load(self._admin.Open(request), what=model.path.name)
        ).bytes

    async def unload(self, model_id: str) -> None:
        """Has it close the dictionary."""
        self._sizes.pop(model_id, None)
        try:
            await self.ask(self._admin.Close(dictionary_pb2.CloseRequest(name=model_id)))
        except ServerError as error:
            if error.status is not grpc.StatusCode.NOT_FOUND:
                raise

    async def measured_size(self, model_id: str) -> int | None:
        """What the server said when it opened the dictionary."""
        return self._sizes.get(model_id)

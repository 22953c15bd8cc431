"""The `modelKey` of a load request: the JSON in which the controller says where a model lies and what it is.

Before the pull it carries storage settings; after it only what the model server needs, with the size on disk.
"""

from __future__ import annotations

from typing import Any

import msgspec

from adapters.errors import InvalidModelKeyError

JSON = dict[str, Any]

_STORAGE_FIELDS = ("storage_key", "storage_params", "bucket")


class _Wire(msgspec.Struct):
    model_type: Any = None
    disk_size_bytes: int | None = None
    schema_path: str | None = None
    storage_key: str | None = None
    storage_params: dict[str, str] | None = None
    bucket: str | None = None


class ModelKey(msgspec.Struct, frozen=True):
    """A parsed `modelKey`.

    `model_type` is an object with a `name`, or a string, as the writer chose. `disk_size_bytes` is None until
    the model is on disk. `bucket` is the form of old writers. `extra` keeps fields that this version does not
    know.
    """

    model_type: Any = None
    disk_size_bytes: int | None = None
    schema_path: str = ""
    storage_key: str = ""
    storage_params: dict[str, str] = {}
    bucket: str = ""
    extra: JSON = {}

    @classmethod
    def parse(cls, raw: str) -> ModelKey:
        """Reads the JSON text.

        Raises:
            InvalidModelKeyError: not a JSON object, or a field of the wrong type.
        """
        try:
            whole = msgspec.json.decode(raw, type=JSON)
            known = msgspec.convert(whole, _Wire)
        except msgspec.MsgspecError as error:
            raise InvalidModelKeyError(f"Invalid modelKey in the request: {error}") from error
        return cls(
            model_type=known.model_type,
            disk_size_bytes=known.disk_size_bytes,
            schema_path=known.schema_path or "",
            storage_key=known.storage_key or "",
            storage_params=known.storage_params or {},
            bucket=known.bucket or "",
            extra={name: value for name, value in whole.items() if name not in _Wire.__struct_fields__},
        )

    def type_name(self, label: str) -> str:
        """The model format's name in lower case, without its version; empty when nobody said.

        `label` is the request's modelType (`mt:sklearn:0|pv:v2`, `rt:runtime`), used where the key names no
        type. A runtime's name says nothing about the format.
        """
        name = self.model_type.get("name") if isinstance(self.model_type, dict) else self.model_type
        if not isinstance(name, str):
            name = "" if label.startswith("rt:") else label.removeprefix("mt:").partition("|")[0]
        return name.lower().partition(":")[0]

    def pulled(self, *, disk_size_bytes: int, schema_path: str) -> ModelKey:
        """The key as the model server may see it: no storage settings, size and schema on disk."""
        return ModelKey(
            model_type=self.model_type,
            disk_size_bytes=disk_size_bytes,
            schema_path=schema_path,
            extra=self.extra,
        )

    def to_json(self) -> str:
        """The JSON text, in the field order that readers of the original saw; unknown fields come last."""
        fields: JSON = {} if self.model_type is None else {"model_type": self.model_type}
        for name in ("disk_size_bytes", "schema_path", *_STORAGE_FIELDS):
            value = getattr(self, name)
            if value or (name == "disk_size_bytes" and value is not None):
                fields[name] = value
        return msgspec.json.encode(fields | self.extra).decode()

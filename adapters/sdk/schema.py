"""The schema file that may accompany a model: names, datatypes and shapes of its tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from adapters.errors import InvalidModelError

if TYPE_CHECKING:
    from pathlib import Path


class Tensor(msgspec.Struct, frozen=True):
    """A tensor of the V2 protocol; -1 in `shape` is a dimension of any length."""

    name: str
    datatype: str
    shape: list[int]


class Schema(msgspec.Struct, frozen=True):
    """Inputs and outputs; None where the file does not speak of them."""

    inputs: list[Tensor] | None = None
    outputs: list[Tensor] | None = None


def read_schema(file: Path) -> Schema:
    """Reads a schema; other keys in it are ignored.

    Raises:
        InvalidModelError: missing, or not of this form.
    """
    try:
        return msgspec.json.decode(file.read_bytes(), type=Schema)
    except (msgspec.MsgspecError, OSError) as error:
        raise InvalidModelError(f"the model's schema {file.name} cannot be used: {error}") from error

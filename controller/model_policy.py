"""What a model's owner wants beyond what the mesh does by itself, in annotations of the model's object.

They are no part of the model's id: a change of them moves nothing and loads nothing anew.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from api.proto import model_mesh_pb2 as pb
from controller.errors import InvalidSpecError

if TYPE_CHECKING:
    from collections.abc import Mapping

MIN_COPIES: Final = "modelmesh/min-copies"
MAX_COPIES: Final = "modelmesh/max-copies"
PINNED: Final = "modelmesh/pinned"
PRIORITY: Final = "modelmesh/priority"

_INTEGER = re.compile(r"-?[0-9]{1,9}")


def read(annotations: Mapping[str, str]) -> pb.ModelPolicy:
    """Returns what the annotations say; without any, what there is by default.

    Raises:
        InvalidSpecError: a value cannot be used; names the annotation, the value and what may stand there.
    """
    policy = pb.ModelPolicy(
        minCopies=_integer(annotations, MIN_COPIES, at_least=0),
        maxCopies=_integer(annotations, MAX_COPIES, at_least=0),
        pinned=_truth(annotations, PINNED),
        priority=_integer(annotations, PRIORITY),
    )
    if 0 < policy.maxCopies < policy.minCopies:
        raise InvalidSpecError(
            f"annotation {MIN_COPIES} is {policy.minCopies}, more than {MAX_COPIES}, which is "
            f"{policy.maxCopies}: change one of them"
        )
    return policy


def _integer(annotations: Mapping[str, str], name: str, at_least: int | None = None) -> int:
    text = annotations.get(name, "0")
    if not _INTEGER.fullmatch(text) or (at_least is not None and int(text) < at_least):
        kind = "a whole number" if at_least is None else f"a whole number of at least {at_least}"
        raise InvalidSpecError(f"annotation {name} is {text!r}: it must be {kind}")
    return int(text)


def _truth(annotations: Mapping[str, str], name: str) -> bool:
    text = annotations.get(name, "false")
    if text not in {"true", "false"}:
        raise InvalidSpecError(f"annotation {name} is {text!r}: it must be 'true' or 'false'")
    return text == "true"

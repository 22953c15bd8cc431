"""Reading the protobuf that `kubectl create` sends for built-in kinds, whatever the server prefers.

`kubectl create namespace|configmap|secret|serviceaccount` sends protobuf since 1.32 and does not fall back to
JSON. Those few messages are read here; manifests are sent as JSON, and the server answers in JSON. Field
numbers are those of the `generated.proto` files of k8s.io/api and k8s.io/apimachinery.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from controller.runtime.errors import BadRequest, UnsupportedMediaType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controller.runtime.client import JSON

CONTENT_TYPE: Final = "application/vnd.kubernetes.protobuf"
_MAGIC: Final = b"k8s\x00"
"""What an object in Kubernetes' protobuf envelope starts with."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _Field(NamedTuple):
    """One field: its JSON name, and its type: `str`, `bytes`, `int`, `bool`, or the fields of a message."""

    name: str
    kind: Any = str
    repeated: bool = False
    map: bool = False


_Message = dict[int, _Field]
_REFERENCE: Final[_Message] = {1: _Field("name")}
_META: Final[_Message] = {
    1: _Field("name"),
    2: _Field("generateName"),
    3: _Field("namespace"),
    11: _Field("labels", map=True),
    12: _Field("annotations", map=True),
    14: _Field("finalizers", repeated=True),
}
_MESSAGES: Final[dict[tuple[str, str], _Message]] = {
    ("v1", "Namespace"): {1: _Field("metadata", _META)},
    ("v1", "ConfigMap"): {
        1: _Field("metadata", _META),
        2: _Field("data", map=True),
        3: _Field("binaryData", bytes, map=True),
        4: _Field("immutable", bool),
    },
    ("v1", "Secret"): {
        1: _Field("metadata", _META),
        2: _Field("data", bytes, map=True),
        3: _Field("type"),
        4: _Field("stringData", map=True),
        5: _Field("immutable", bool),
    },
    ("v1", "ServiceAccount"): {
        1: _Field("metadata", _META),
        3: _Field("imagePullSecrets", _REFERENCE, repeated=True),
        4: _Field("automountServiceAccountToken", bool),
    },
}
_TYPE_META: Final[_Message] = {1: _Field("apiVersion"), 2: _Field("kind")}
_ENVELOPE: Final[_Message] = {1: _Field("typeMeta", _TYPE_META), 2: _Field("raw", memoryview)}


def decode(body: bytes) -> JSON:
    """Return the object in an envelope as JSON.

    Raises:
        BadRequest: the bytes are no such envelope.
        UnsupportedMediaType: the object is of a kind that is not read here.
    """
    if not body.startswith(_MAGIC):
        raise BadRequest("the body is not an object in Kubernetes' protobuf envelope")
    try:
        envelope = _read(memoryview(body)[len(_MAGIC) :], _ENVELOPE)
        names = envelope.get("typeMeta") or {}
        api_version, kind = names.get("apiVersion", ""), names.get("kind", "")
        message = _MESSAGES.get((api_version, kind))
        if message is None:
            raise UnsupportedMediaType(
                f"the body of the request was in an unknown format ({CONTENT_TYPE} of {api_version} {kind}): "
                "send a manifest (`kubectl create … --dry-run=client -o yaml | kubectl apply -f -`)",
            )
        return {
            "apiVersion": api_version,
            "kind": kind,
            **_read(envelope.get("raw", memoryview(b"")), message),
        }
    except (IndexError, ValueError) as error:
        raise BadRequest(f"the protobuf in the body cannot be read: {error}") from error


def _read(data: memoryview, message: _Message) -> JSON:
    found: JSON = {}
    for number, value in _fields(data):
        field = message.get(number)
        if field is None:
            continue
        if field.map:
            entry = _read(value, {1: _Field("key"), 2: _Field("value", field.kind)})
            found.setdefault(field.name, {})[entry.get("key", "")] = entry.get("value", "")
        elif field.repeated:
            found.setdefault(field.name, []).append(_value(value, field.kind))
        else:
            found[field.name] = _value(value, field.kind)
    return found


def _value(value: Any, kind: Any) -> Any:
    if isinstance(kind, dict):
        return _read(value, kind)
    if kind is str:
        return str(value, "utf-8")
    if kind is bytes:
        return base64.b64encode(value).decode()
    return kind(value)


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field of the wire format."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value: Any
            value, position = _varint(data, position)
        elif wire in {_BYTES, _FIXED32, _FIXED64}:
            length = {_FIXED32: 4, _FIXED64: 8}.get(wire)
            if length is None:
                length, position = _varint(data, position)
            value, position = data[position : position + length], position + length
            if position > len(data):
                raise IndexError("a field ends after the end of the body")
        else:
            raise ValueError(f"unknown wire type {wire}")
        yield number, value


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
        shift += 7

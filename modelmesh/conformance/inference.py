"""Asking a model by gRPC the way the mesh does: the id goes into the message and into the headers.

A V2 request is read from JSON, in the form of V2's REST requests. Any other method takes the bytes of a
request message as they are; the id is added at the end, where by the rules of protobuf it wins.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.message import EncodeError

from api.proto.kfs_inference_v2_pb2 import InferParameter, ModelInferRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from grpc import aio

V2_INFER = "inference.GRPCInferenceService/ModelInfer"

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
# Wire type of texts and messages in protobuf's encoding, and the bits that it takes of a tag.
_LENGTH_DELIMITED, _TAG_BITS = 2, 3


@dataclass(slots=True)
class Inference:
    """A request, and where to send it."""

    channel: aio.Channel
    method: str
    request: bytes

    async def ask(self, model_id: str, id_path: Sequence[int], *, timeout_s: float) -> bytes:
        """Asks a model; AioRpcError where that fails. The fields of `id_path`, if any, lead to the id."""
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(f"/{self.method}")
        message = self.request + (injection(id_path, model_id) if id_path else b"")
        metadata = (("mm-model-id", model_id), ("mm-model-id-bin", model_id.encode()))
        answer: bytes = await call(message, metadata=metadata, timeout=timeout_s)
        return answer


def injection(path: Sequence[int], text: str) -> bytes:
    """Returns a text, encoded in the field to which `path` leads; appended to a message, it wins there."""
    content = text.encode()
    for number in reversed(path):
        content = _varint(number << _TAG_BITS | _LENGTH_DELIMITED) + _varint(len(content)) + content
    return content


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*encoded, number))


def read_request(file: Path, method: str) -> bytes:
    """Reads a request: JSON for V2's ModelInfer, a serialized message for another method.

    Raises:
        ValueError: it is no such request; says why.
        OSError: it cannot be read.
    """
    if method != V2_INFER:
        return file.read_bytes()
    try:
        return v2_request(json.loads(file.read_bytes())).SerializeToString()
    except (KeyError, TypeError, AttributeError, EncodeError) as error:
        raise ValueError(f"it is not a V2 inference request: {error!r}") from error


def v2_request(body: Mapping[str, Any]) -> ModelInferRequest:
    """Builds the message of a V2 REST request's JSON.

    Raises:
        ValueError: a data type is unknown.
        KeyError, TypeError, AttributeError: a field is missing or of the wrong kind.
    """
    request = ModelInferRequest(id=body.get("id", ""))
    _set_parameters(request.parameters, body.get("parameters", {}))
    for given in body["inputs"]:
        datatype = given["datatype"]
        if datatype not in _CONTENTS:
            raise ValueError(f"datatype {datatype!r} is none of {', '.join(_CONTENTS)}")
        tensor = request.inputs.add(name=given["name"], datatype=datatype, shape=given["shape"])
        _set_parameters(tensor.parameters, given.get("parameters", {}))
        values = list(_flat(given["data"]))
        if datatype == "BYTES":
            values = [value.encode() for value in values]
        getattr(tensor.contents, _CONTENTS[datatype]).extend(values)
    for given in body.get("outputs", []):
        request.outputs.add(name=given["name"])
    return request


def _set_parameters(target: Any, given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        kind = (
            "bool_param"
            if isinstance(value, bool)
            else "int64_param"
            if isinstance(value, int)
            else "string_param"
        )
        target[name].CopyFrom(InferParameter(**{kind: value}))


def _flat(data: Any) -> Iterator[Any]:
    if isinstance(data, list):
        for item in data:
            yield from _flat(item)
    else:
        yield data

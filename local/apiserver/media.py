"""Content negotiation: what a body is, and which representation of the answer a client wants.

The server speaks JSON, and reads YAML as well (and the little protobuf that `kubectl` insists on). Clients
that accept protobuf accept JSON too and get that.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import yaml

from controller.runtime.errors import BadRequest, NotAcceptable, UnsupportedMediaType
from local.apiserver import protobuf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp import web

JSON_TYPE: Final = "application/json"
APPLY_TYPE: Final = "application/apply-patch+yaml"
_YAML_TYPES: Final = frozenset({"application/yaml", APPLY_TYPE})
_JSON_TYPES: Final = frozenset(
    {"", JSON_TYPE, "application/json-patch+json", "application/merge-patch+json"}
    | {"application/strategic-merge-patch+json", "application/octet-stream"},
)


class View(StrEnum):
    """A representation of objects."""

    FULL = ""
    TABLE = "Table"
    METADATA = "PartialObjectMetadata"
    METADATA_LIST = "PartialObjectMetadataList"
    DISCOVERY = "APIGroupDiscoveryList"


class _Offer(NamedTuple):
    media_type: str
    parameters: dict[str, str]


def _offers(accept: str) -> Iterator[_Offer]:
    for clause in accept.split(","):
        media_type, *parameters = (part.strip() for part in clause.split(";"))
        pairs = (parameter.partition("=") for parameter in parameters)
        yield _Offer(media_type.lower(), {name: value for name, _, value in pairs})


def view(request: web.Request) -> View:
    """Return the first representation the client accepts that the server has; NotAcceptable without one."""
    accept = request.headers.get("Accept") or "*/*"
    for offer in _offers(accept):
        if offer.media_type not in {JSON_TYPE, "application/*", "*/*"}:
            continue
        name = offer.parameters.get("as", "")
        if name not in set(View) or (name and not offer.parameters.get("v", "v1").startswith(("v1", "v2"))):
            continue
        if name == View.DISCOVERY and offer.parameters.get("v") != "v2":
            continue
        return View(name)
    raise NotAcceptable(
        f"only the following media types are accepted: {JSON_TYPE} (the request accepts {accept})"
    )


async def read(request: web.Request) -> Any:
    """Return the decoded body.

    Raises:
        BadRequest: the body is empty, or no JSON or YAML.
        UnsupportedMediaType: it is neither, by its content type.
    """
    body = await request.read()
    kind = request.content_type if "Content-Type" in request.headers else ""
    if kind in _YAML_TYPES:
        try:
            return yaml.load(body, Loader=yaml.CSafeLoader)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise BadRequest(f"error decoding YAML: {error}") from error
    if kind == protobuf.CONTENT_TYPE:
        return protobuf.decode(body)
    if kind not in _JSON_TYPES:
        raise UnsupportedMediaType(
            f"the body of the request was in an unknown format ({kind}) - accepted media types include: "
            f"{JSON_TYPE}, application/yaml",
        )
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(f"couldn't get version/kind; json parse error: {error}") from error

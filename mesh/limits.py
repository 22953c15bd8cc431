"""How long the texts may be that clients have written to the registry.

Every instance holds every record, and etcd takes at most 1.5 MiB in one request: a vmodel and three models,
which change together, fit into one even where each byte of theirs needs six in JSON.
"""

from mesh.errors import InvalidRequestError

MAX_ID_BYTES = 1_024
"""Ids also travel in request headers, which clients and proxies limit to some kilobytes."""
MAX_BYTES = {
    "modelId": MAX_ID_BYTES,
    "vModelId": MAX_ID_BYTES,
    "targetModelId": MAX_ID_BYTES,
    "owner": MAX_ID_BYTES,
    "type": MAX_ID_BYTES,
    "path": 8_192,
    "key": 65_536,
}
"""By the field's name in the API, as UTF-8."""


def check_sizes(**fields: str) -> None:
    """Raises InvalidRequestError naming the first field that is too long."""
    for name, text in fields.items():
        size, most = len(text.encode()), MAX_BYTES[name]
        if size > most:
            raise InvalidRequestError(f"{name} has {size} bytes: at most {most} are possible")

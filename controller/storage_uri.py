"""`storageUri`: one text for what a storage type, a place in it and a path are in the storage form."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from controller.errors import InvalidSpecError

_AZURE_BLOB_HOST = "blob.core.windows.net"


class StorageLocation(NamedTuple):
    """Where a model lies: `path` within the storage that `parameters` describe."""

    path: str
    parameters: dict[str, str]


def parse(uri: str) -> StorageLocation:
    """Maps a storage URI; InvalidSpecError where it has no scheme, no place or an unknown scheme."""
    try:
        parts = urlsplit(uri)
        host = parts.hostname or ""
    except ValueError as error:
        raise InvalidSpecError(f"storageUri '{uri}' is not a URI: {error}") from error
    path = parts.path.removeprefix("/")
    match parts.scheme:
        case "s3" if parts.netloc:
            return StorageLocation(path, {"type": "s3", "bucket": parts.netloc})
        case "gs" if parts.netloc:
            return StorageLocation(path, {"type": "gcs", "bucket": parts.netloc})
        case "pvc" if parts.netloc:
            return StorageLocation(path, {"type": "pvc", "name": parts.netloc})
        case "http" | "https" if host.endswith(_AZURE_BLOB_HOST):
            account, _, _ = host.partition(".")
            container, _, blob = path.partition("/")
            return StorageLocation(blob, {"type": "azure", "account_name": account, "container": container})
        case "http" | "https" if parts.netloc:
            site = urlunsplit(parts._replace(path=""))
            return StorageLocation(path, {"type": "http", "url": site})
    raise InvalidSpecError(
        f"storageUri '{uri}' must be s3://, gs://, pvc://, http:// or https:// followed by "
        "a bucket, claim or host",
    )

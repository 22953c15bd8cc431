"""Storage type `s3`: Amazon's S3 and all that speak its protocol."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from obstore.exceptions import BaseError
from obstore.store import S3Store

from adapters.errors import StorageConfigError
from adapters.puller.object_storage import ObjectStorage

if TYPE_CHECKING:
    import asyncio

    from adapters.puller.storage_config import StorageConfig

# Where AWS tells a process who it is (IRSA, ECS, plain variables); without any, requests go unsigned.
_AMBIENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_DEFAULT_REGION = "us-east-1"
# Without an endpoint, bucket and region become parts of the host name that (signed) requests are sent to.
_HOST_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Transient failures (5xx, refused or dropped connections) are retried this often, over about 6 s.
_RETRIES = 5
_RETRY = {
    "max_retries": _RETRIES,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {
        "init_backoff": timedelta(milliseconds=200),
        "max_backoff": timedelta(seconds=3),
        "base": 2,
    },
}
# A transfer may take as long as it moves: only silence ends it.
_CLIENT = {
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=30),
    "timeout": timedelta(days=1),
}


def open_storage(config: StorageConfig, slots: asyncio.Semaphore) -> ObjectStorage:
    """Opens the bucket that the settings name.

    Settings: `bucket`; `endpoint_url` (Amazon's if absent; `http://` is allowed) and `region`;
    `access_key_id` with `secret_access_key`, or neither for the credentials of the pod, or unsigned requests
    where it has none; `certificate` (PEM) of a private authority. Requests are path-style where there is an
    endpoint.

    Raises:
        StorageConfigError: a setting is missing or cannot be used.
    """
    config.required("bucket")
    bucket, endpoint = config.text("bucket"), config.text("endpoint_url")
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise StorageConfigError(f'endpoint_url "{endpoint}" is no http or https URL ({config.describe()})')
    region = config.text("region") or _DEFAULT_REGION
    if not endpoint and not (_HOST_PART.fullmatch(bucket) and _HOST_PART.fullmatch(region)):
        raise StorageConfigError(f'bucket "{bucket}" or region "{region}" is none of Amazon\'s')
    options: dict[str, Any] = {
        "region": region,
        "virtual_hosted_style_request": not endpoint,
        **({"endpoint": endpoint.rstrip("/")} if endpoint else {}),
        **_credentials(config),
    }
    client: dict[str, Any] = {**_CLIENT, "allow_http": endpoint.startswith("http://")}
    if config.text("certificate"):
        client["root_certificate"] = config.text("certificate")
    try:
        store = S3Store(bucket, client_options=client, retry_config=_RETRY, **options)  # type: ignore[arg-type]
    except (BaseError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise StorageConfigError(f"the S3 settings cannot be used ({config.describe()}): {reason}") from error
    return ObjectStorage(store, f"s3://{bucket}", config, slots)


def _credentials(config: StorageConfig) -> dict[str, Any]:
    if config.text("access_key_id") or config.text("secret_access_key"):
        config.required("access_key_id", "secret_access_key")
        keys = {name: config.text(name) for name in ("access_key_id", "secret_access_key")}
        token = config.text("session_token")
        return {**keys, **({"session_token": token} if token else {})}
    # The pod's own identity is shown to Amazon and to endpoints that an administrator chose, not to any host
    # that a model's parameters name.
    trusted = config.entry is not None or not config.text("endpoint_url")
    ambient = trusted and any(os.environ.get(name) for name in _AMBIENT)
    return {} if ambient else {"skip_signature": True}

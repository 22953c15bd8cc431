"""Storage type `s3`: Amazon's S3 and all that speak its protocol."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from obstore.store import S3Store

from adapters.errors import StorageConfigError
from adapters.puller import clients
from adapters.puller.object_storage import ObjectStorage

if TYPE_CHECKING:
    from adapters.puller.settings import Pod
    from adapters.puller.storage_config import StorageConfig

# Where AWS tells a process who it is: plain variables, IRSA, EKS Pod Identity and ECS.
_AMBIENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_DEFAULT_REGION = "us-east-1"
# Without an endpoint, bucket and region become parts of the host name that (signed) requests are sent to.
_HOST_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def open_storage(config: StorageConfig, pod: Pod) -> ObjectStorage:
    """Opens the bucket that the settings name.

    Settings: `bucket`; `endpoint_url` (Amazon's if absent; `http://` is allowed) and `region`;
    `access_key_id` with `secret_access_key` and perhaps `session_token`, or none for the identity of the pod,
    or unsigned requests where it has none (`credentials` forces one or the other); `certificate` (PEM) of a
    private authority; `addressing`: `path` (the default where there is an endpoint) or `virtual` (the default
    on Amazon), where the bucket is a part of the host name.

    Raises:
        StorageConfigError: a setting is missing or cannot be used.
    """
    bucket, endpoint = config.text("bucket"), clients.endpoint_url(config)
    region = config.text("region") or _DEFAULT_REGION
    addressing = config.text("addressing") or ("path" if endpoint else "virtual")
    if addressing not in {"path", "virtual"}:
        raise StorageConfigError(f'addressing "{addressing}" must be "path" or "virtual"')
    virtual = addressing == "virtual"
    if not (_HOST_PART.fullmatch(region) and (_HOST_PART.fullmatch(bucket) or not (virtual or not endpoint))):
        raise StorageConfigError(f'bucket "{bucket}" or region "{region}" cannot be a part of a host name')
    options: dict[str, Any] = {
        "region": region,
        "virtual_hosted_style_request": virtual,
        **_endpoint(endpoint, bucket if virtual else ""),
        **_credentials(config),
    }
    store = clients.built(
        lambda: S3Store(
            bucket,
            client_options=clients.options(config, endpoint),  # type: ignore[arg-type]
            retry_config=clients.RETRY,  # type: ignore[arg-type]
            **options,
        ),
        "S3",
        config,
    )
    return ObjectStorage(store, f"s3://{bucket}", config, pod, digests=True)


def _endpoint(endpoint: str, bucket: str) -> dict[str, str]:
    """The client's endpoint, which has the bucket in its host name where that is the addressing."""
    scheme, _, host = endpoint.partition("://")
    if not endpoint:
        return {}
    return {"endpoint": f"{scheme}://{bucket}.{host}" if bucket else endpoint}


def _credentials(config: StorageConfig) -> dict[str, Any]:
    if config.text("access_key_id"):
        keys = {name: config.text(name) for name in ("access_key_id", "secret_access_key")}
        token = config.text("session_token")
        return {**keys, **({"session_token": token} if token else {})}
    ambient = clients.is_ambient(config, _AMBIENT, trusted=not config.text("endpoint_url"))
    return {} if ambient else {"skip_signature": True}

"""Storage type `gcs`: Google Cloud Storage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from obstore.store import GCSStore

from adapters.errors import StorageConfigError
from adapters.puller import clients
from adapters.puller.object_storage import ObjectStorage

if TYPE_CHECKING:
    from adapters.puller.settings import Pod
    from adapters.puller.storage_config import StorageConfig

_AMBIENT = ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY")
# The client signs its own tokens and asks nobody for them; these are the addresses that entries carry.
_GOOGLES_TOKENS = ("https://oauth2.googleapis.com/token", "https://accounts.google.com/o/oauth2/token")


def open_storage(config: StorageConfig, pod: Pod) -> ObjectStorage:
    """Opens the bucket that the settings name.

    Settings: `bucket`; `private_key` with `client_email` of a service account (`token_uri` may say Google's),
    or none for the identity of the pod, or unsigned requests where it has none. Workload identity shows in no
    environment variable: an entry with `credentials` `ambient` asks for it. `endpoint_url` is that of another
    server, `certificate` (PEM) that of a private authority.

    Raises:
        StorageConfigError: a setting is missing or cannot be used.
    """
    bucket, endpoint = config.text("bucket"), clients.endpoint_url(config)
    token_uri = config.text("token_uri")
    if token_uri and token_uri not in _GOOGLES_TOKENS:
        raise StorageConfigError(f'token_uri "{token_uri}" is none of Google\'s ({config.describe()})')
    options: dict[str, Any] = {
        **({"base_url": endpoint} if endpoint else {}),
        **_credentials(config),
    }
    store = clients.built(
        lambda: GCSStore(
            bucket,
            client_options=clients.options(config, endpoint),  # type: ignore[arg-type]
            retry_config=clients.RETRY,  # type: ignore[arg-type]
            **options,
        ),
        "GCS",
        config,
    )
    return ObjectStorage(store, f"gs://{bucket}", config, pod, digests=True)


def _credentials(config: StorageConfig) -> dict[str, Any]:
    if config.text("private_key"):
        account = {
            "type": "service_account",
            "private_key": config.text("private_key"),
            "private_key_id": config.text("private_key_id"),
            "client_email": config.text("client_email"),
        }
        return {"service_account_key": json.dumps(account)}
    ambient = clients.is_ambient(config, _AMBIENT, trusted=not config.text("endpoint_url"))
    return {} if ambient else {"skip_signature": True}

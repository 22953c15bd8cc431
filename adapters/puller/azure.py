"""Storage type `azure`: Azure Blob Storage."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from obstore.store import AzureStore

from adapters.errors import StorageConfigError
from adapters.puller import clients
from adapters.puller.object_storage import ObjectStorage

if TYPE_CHECKING:
    from adapters.puller.settings import Pod
    from adapters.puller.storage_config import StorageConfig

# Where Azure Workload Identity and managed identities of its services tell a process who it is.
_AMBIENT = (
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_IDENTITY_ENDPOINT",
    "IDENTITY_ENDPOINT",
    "AZURE_MSI_ENDPOINT",
)
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_PUBLIC_CLOUD = "core.windows.net"


def open_storage(config: StorageConfig, pod: Pod) -> ObjectStorage:
    """Opens the container that the settings name.

    Settings: `account_name` and `container`; `connection_string`, which wins, or `client_id`, `client_secret`
    and `tenant_id`, or none for the identity of the pod, or unsigned requests where it has none;
    `certificate` (PEM) of a private authority.

    Raises:
        StorageConfigError: a setting is missing or cannot be used.
    """
    container = config.text("container")
    options = _options(config)
    account = options["account_name"]
    if not _ACCOUNT.fullmatch(account):
        raise StorageConfigError(f'account_name "{account}" is none that Azure gives ({config.describe()})')
    store = clients.built(
        lambda: AzureStore(
            container,
            client_options=clients.options(config, options.get("endpoint", "")),  # type: ignore[arg-type]
            retry_config=clients.RETRY,  # type: ignore[arg-type]
            **options,
        ),
        "Azure",
        config,
    )
    return ObjectStorage(store, f"azure://{account}/{container}", config, pod, digests=False)


def _options(config: StorageConfig) -> dict[str, Any]:
    account = config.text("account_name")
    if config.text("connection_string"):
        return _from_connection_string(config)
    if config.text("client_id"):
        keys = ("client_id", "client_secret", "tenant_id")
        return {"account_name": account, **{name: config.text(name) for name in keys}}
    ambient = clients.is_ambient(config, _AMBIENT, trusted=True)
    return {"account_name": account, **({} if ambient else {"skip_signature": True})}


def _from_connection_string(config: StorageConfig) -> dict[str, Any]:
    """The client's options for a connection string as Azure's portal shows it."""
    pairs = (part.partition("=") for part in config.text("connection_string").split(";") if part.strip())
    fields = {name.strip().lower(): value.strip() for name, _, value in pairs}
    account = fields.get("accountname", config.text("account_name"))
    scheme = fields.get("defaultendpointsprotocol", "https")
    suffix = fields.get("endpointsuffix", _PUBLIC_CLOUD)
    options = {
        "account_name": account,
        "endpoint": fields.get("blobendpoint", f"{scheme}://{account}.blob.{suffix}").rstrip("/"),
    }
    if "accountkey" in fields:
        return options | {"account_key": fields["accountkey"]}
    if "sharedaccesssignature" in fields:
        return options | {"sas_key": fields["sharedaccesssignature"].lstrip("?")}
    raise StorageConfigError(
        f"the connection_string has neither AccountKey nor SharedAccessSignature ({config.describe()})"
    )

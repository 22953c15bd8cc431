"""What the clients of object stores have in common: retries, time limits, certificates, whose identity."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from obstore.exceptions import BaseError

from adapters.errors import StorageConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from adapters.puller.storage_config import StorageConfig

# Transient failures (5xx, refused or dropped connections) are retried this often, over about 6 s.
RETRY: dict[str, Any] = {
    "max_retries": 5,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {
        "init_backoff": timedelta(milliseconds=200),
        "max_backoff": timedelta(seconds=3),
        "base": 2,
    },
}
# A transfer may take as long as it moves: only silence ends it.
CONNECT_TIMEOUT_S, SILENCE_TIMEOUT_S = 5, 30

_ENDPOINT = re.compile(r"https?://[^/?#@]+(/[^?#]*)?")


def options(config: StorageConfig, endpoint: str = "") -> dict[str, Any]:
    """Options of an HTTP client for the settings: `certificate` (PEM) is trusted beside the well-known."""
    client: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
        "read_timeout": timedelta(seconds=SILENCE_TIMEOUT_S),
        "timeout": timedelta(days=1),
        "allow_http": endpoint.startswith("http://"),
    }
    if config.text("certificate"):
        client["root_certificate"] = config.text("certificate")
    return client


def endpoint_url(config: StorageConfig) -> str:
    """The setting `endpoint_url` without a slash at its end, empty where absent.

    Raises:
        StorageConfigError: it is no http or https URL of a server.
    """
    endpoint = config.text("endpoint_url")
    if endpoint and not _ENDPOINT.fullmatch(endpoint):
        raise StorageConfigError(f'endpoint_url "{endpoint}" is no http or https URL ({config.describe()})')
    return endpoint.rstrip("/")


def is_ambient(config: StorageConfig, variables: Sequence[str], *, trusted: bool) -> bool:
    """Whether to show the pod's own identity where the settings have no credentials.

    The setting `credentials` says `ambient` or `anonymous`; without it, ambient if one of the environment
    `variables` tells the pod who it is. `trusted` is whether the server is the provider's own: to any other
    the identity is shown only where an entry of the Secret names it, not where a model's parameters do.

    Raises:
        StorageConfigError: `credentials` is neither.
    """
    asked = config.text("credentials")
    if asked not in {"", "ambient", "anonymous"}:
        raise StorageConfigError(
            f'credentials "{asked}" must be "ambient" or "anonymous" ({config.describe()})'
        )
    if asked == "anonymous" or not (trusted or config.entry is not None):
        return False
    return asked == "ambient" or any(os.environ.get(name) for name in variables)


def built(make: Callable[[], Any], kind: str, config: StorageConfig) -> Any:
    """Makes a client.

    Raises:
        StorageConfigError: the settings cannot be used; says why, without their secrets.
    """
    try:
        return make()
    except (BaseError, ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise StorageConfigError(
            f"the {kind} settings cannot be used ({config.describe()}): {reason}"
        ) from error

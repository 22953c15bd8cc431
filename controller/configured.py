"""The configuration as it is now: follows ConfigMap `model-serving-config`, keeps the last good one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from api.core import CONFIG_MAP, ConfigMap
from controller import config
from controller.errors import ConfigurationError
from controller.runtime.errors import NotFound

if TYPE_CHECKING:
    from pathlib import Path

    from controller.config import Configuration
    from controller.runtime.client import Client
    from controller.runtime.events import EventRecorder

JSON = dict[str, Any]

_log = structlog.get_logger(__name__)


_POLL_S = 2.0
"""How long a bad ConfigMap may go unnoticed to be mended while nothing else runs yet."""


class ConfigMaps(Protocol):
    """Finds ConfigMaps; the cache's lister is one."""

    def get(self, name: str, namespace: str = "") -> ConfigMap | None:
        """Returns one, or None."""
        ...


class LiveConfiguration:
    """Hands out the configuration, and reads the ConfigMap again when it has changed.

    Where the ConfigMap cannot be used the configuration stays as it was, and `problem` tells why: pods must
    not be rebuilt because of a typing mistake. Without the ConfigMap the defaults hold.

    Args:
        namespace: the controller's namespace.
        config_maps: finds the ConfigMap.
        defaults_file: the installation's defaults; it need not exist.
        initial: the ConfigMap as the start finds it.

    Raises:
        ConfigurationError: the defaults or the initial ConfigMap cannot be used.
    """

    def __init__(
        self,
        namespace: str,
        config_maps: ConfigMaps,
        defaults_file: Path | None = None,
        initial: JSON | None = None,
    ) -> None:
        self._namespace = namespace
        self._config_maps = config_maps
        self._defaults = _read_defaults(defaults_file)
        self._seen = ""
        self.problem = ""
        self._current = self._started_with = self._parse(initial)

    def current(self) -> Configuration:
        """Returns the configuration in effect."""
        found = self._config_maps.get(config.CONFIG_MAP, self._namespace)
        version = "" if found is None else found.metadata.resource_version
        if version != self._seen:
            self._seen = version
            self._adopt(found)
        return self._current

    @property
    def needs_restart(self) -> list[str]:
        """Keys that were changed and are read only once, at the start."""
        then, now = self._started_with, self._current
        names = {
            "storageSecretName": then.storage_secret_name != now.storage_secret_name,
            "etcdSecretName": then.etcd_secret_name != now.etcd_secret_name,
        }
        return [name for name, changed in names.items() if changed]

    def _parse(self, raw: JSON | None) -> Configuration:
        if raw is None:
            return config.load(*self._defaults)
        return config.load(*self._defaults, (config.user_text(raw), _origin(self._namespace)))

    def _adopt(self, found: ConfigMap | None) -> None:
        try:
            self._current = self._parse(None if found is None else found.dump())
        except ConfigurationError as error:
            self.problem = str(error)
            _log.error("configuration not usable; keeping the last good one", error=str(error))
            return
        self.problem = ""
        _log.info("configuration in effect", ignored=list(self._current.ignored))


async def usable(
    client: Client, recorder: EventRecorder, namespace: str, defaults_file: Path | None
) -> JSON | None:
    """Returns the ConfigMap that a start finds, once it can be used; None where there is none.

    A bad one is told to its author in an Event and waited out: a process that ends has its reason only in a
    log, and comes back to the same.

    Raises:
        ConfigurationError: the installation's defaults cannot be used.
    """
    defaults = _read_defaults(defaults_file)
    config.load(*defaults)
    told = ""
    while True:
        try:
            raw = await client.get(CONFIG_MAP, config.CONFIG_MAP, namespace)
        except NotFound:
            return None
        try:
            config.load(*defaults, (config.user_text(raw), _origin(namespace)))
        except ConfigurationError as error:
            if str(error) != told:
                told = str(error)
                _log.error("configuration not usable; waiting for a better one", error=told)
                message = f"Not in effect, and the controller waits for it: {told}"
                await recorder.event(ConfigMap.parse(raw), "Warning", "InvalidConfiguration", message)
            await asyncio.sleep(_POLL_S)
        else:
            return raw


def _origin(namespace: str) -> str:
    return f"ConfigMap {namespace}/{config.CONFIG_MAP}"


def _read_defaults(path: Path | None) -> tuple[tuple[str, str], ...]:
    if path is None:
        return ()
    try:
        return ((path.read_text(), str(path)),)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ConfigurationError(f"defaults file {path} cannot be read: {error}") from error

"""The configuration as it is now: follows ConfigMap `model-serving-config`, keeps the last good one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import structlog

from controller import config
from controller.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from api.core import ConfigMap
    from controller.config import Configuration

JSON = dict[str, Any]

_log = structlog.get_logger(__name__)


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
        self._current = self._parse(initial)

    def current(self) -> Configuration:
        """Returns the configuration in effect."""
        found = self._config_maps.get(config.CONFIG_MAP, self._namespace)
        version = "" if found is None else found.metadata.resource_version
        if version != self._seen:
            self._seen = version
            self._adopt(found)
        return self._current

    def _parse(self, raw: JSON | None) -> Configuration:
        if raw is None:
            return config.load(*self._defaults)
        origin = f"ConfigMap {self._namespace}/{config.CONFIG_MAP}"
        return config.load(*self._defaults, (config.user_text(raw), origin))

    def _adopt(self, found: ConfigMap | None) -> None:
        try:
            self._current = self._parse(None if found is None else found.dump())
        except ConfigurationError as error:
            self.problem = str(error)
            _log.error("configuration not usable; keeping the last good one", error=str(error))
            return
        self.problem = ""
        _log.info("configuration in effect", ignored=list(self._current.ignored))


def _read_defaults(path: Path | None) -> tuple[tuple[str, str], ...]:
    if path is None:
        return ()
    try:
        return ((path.read_text(), str(path)),)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ConfigurationError(f"defaults file {path} cannot be read: {error}") from error

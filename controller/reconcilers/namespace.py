"""What all runtimes of a served namespace share: the type constraints, and the way to the registry."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from api.core import CONFIG_MAP, SECRET, ConfigMap, Secret
from controller import claims, constraints, marks, runtimes
from controller.runtime.apply import ensure, ensure_absent
from controller.runtime.reconcile import Request, Result
from store.connection import parse_connection
from store.errors import ConnectionConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from api.meta import KubeObject
    from api.v1alpha1 import ClusterServingRuntime, ServingRuntime
    from controller.config import Configuration
    from controller.runtime.client import Client
    from controller.runtime.events import EventRecorder
    from controller.runtime.informer import Lister
    from controller.scope import Scope
    from store.connection import EtcdConnection

JSON = dict[str, Any]

_log = structlog.get_logger(__name__)

CONNECTION = "etcd_connection"
_FILES = ("certificate_file", "client_key_file", "client_certificate_file")
_SETTINGS = (
    "endpoints",
    "userid",
    "password",
    "root_prefix",
    "certificate",
    "certificate_file",
    "client_key",
    "client_key_file",
    "client_certificate",
    "client_certificate_file",
    "override_authority",
)


def connection(secret: Secret) -> EtcdConnection:
    """Reads the etcd Secret; ConnectionConfigError names the setting at fault."""
    entries = {name: base64.b64decode(value) for name, value in secret.data.items()}
    return parse_connection(entries.get(CONNECTION, b""), entries)


def connection_for(source: Secret, namespace: str, root_prefix: str, controller: str) -> JSON:
    """Builds a namespace's own copy of the etcd Secret: the same etcd below another prefix.

    Args:
        source: the Secret of the controller's namespace.
        namespace: whose copy.
        root_prefix: what is put after the prefix of the source.
        controller: namespace of the controller.

    Raises:
        ValueError: the source's `etcd_connection` is missing or no JSON object.
    """
    settings = json.loads(base64.b64decode(source.data.get(CONNECTION, "")))
    if not isinstance(settings, dict):
        raise ValueError(f"{CONNECTION} is {type(settings).__name__}, not a JSON object")  # noqa: TRY004 -- user's text
    known = {name: settings[name] for name in _SETTINGS if name in settings}
    known["root_prefix"] = f"{settings.get('root_prefix', '')}{root_prefix}"
    text = json.dumps(known, separators=(",", ":"))
    named = (settings.get(name) for name in _FILES)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": source.name, "namespace": namespace, "labels": marks.labels(controller)},
        "data": {file: source.data[file] for file in named if file in source.data}
        | {CONNECTION: base64.b64encode(text.encode()).decode()},
    }


@dataclass(slots=True)
class NamespaceReconciler:
    """Reconciles a namespace; the request's name does not matter.

    Attributes:
        client: the API server.
        recorder: records Events.
        scope: the served namespaces.
        configuration: returns the configuration in effect.
        etcd_secret: name of the Secret with `etcd_connection`.
        runtimes: returns the runtimes of a namespace by name, were it served.
        secrets: the cache of the controller's own etcd Secret.
        copies: returns the copy of a namespace.
        storages: returns the storage Secret of a namespace.
        config_maps: the cache of `tc-config` ConfigMaps.
    """

    client: Client
    recorder: EventRecorder
    scope: Scope
    configuration: Callable[[], Configuration]
    etcd_secret: str
    runtimes: Callable[[str], Mapping[str, ServingRuntime | ClusterServingRuntime]]
    secrets: Lister[Secret]
    copies: Callable[[str], Awaitable[Secret | None]]
    storages: Callable[[str], Awaitable[Secret | None]]
    config_maps: Lister[ConfigMap]
    _looked_at: dict[tuple[str, str], str] = field(default_factory=dict)

    async def reconcile(self, request: Request) -> Result:
        """Makes both be there where the namespace is served and has a runtime, and nowhere else."""
        namespace = request.namespace
        found = self.runtimes(namespace) if self.scope.enabled(namespace) else {}
        await self._constrain(namespace, found)
        if namespace != self.scope.own:
            await self._connect(namespace, wanted=bool(found))
        if found:
            await self._look_at_connection()
            await self._look_at_storages(namespace)
        return Result()

    async def _constrain(
        self, namespace: str, found: Mapping[str, ServingRuntime | ClusterServingRuntime]
    ) -> None:
        live = self.config_maps.get(constraints.NAME, namespace)
        if not found:
            await self._remove(live)
            return
        rest = self.configuration().rest_proxy.enabled
        wanted = constraints.config_map(namespace, runtimes.enabled(found), self.scope.own, rest=rest)
        await ensure(self.client, CONFIG_MAP, wanted, live=live)

    async def _connect(self, namespace: str, *, wanted: bool) -> None:
        live = await self.copies(namespace)
        source = self.secrets.get(self.etcd_secret, self.scope.own)
        if not wanted:
            await self._remove(live)
            return
        if source is None:
            _log.error("etcd Secret is missing", namespace=self.scope.own, secret=self.etcd_secret)
            return
        try:
            copy = connection_for(source, namespace, self.scope.root_prefix(namespace), self.scope.own)
        except ValueError as error:
            _log.error("etcd Secret cannot be copied", namespace=namespace, error=str(error))
            return
        done = await ensure(self.client, SECRET, copy, live=live)
        if done.action != "unchanged":
            _log.info(f"etcd Secret {done.action}", namespace=namespace, secret=self.etcd_secret)

    async def _look_at_connection(self) -> None:
        """Tells once of each version of the etcd Secret what of it cannot be used."""
        secret = self.secrets.get(self.etcd_secret, self.scope.own)
        if secret is None or not self._is_new(secret):
            return
        try:
            connection(secret)
        except ConnectionConfigError as error:
            message = f"Not usable, no mesh starts with it; namespaces keep the copies they have: {error}"
            await self.recorder.event(secret, "Warning", "InvalidConnection", message)

    async def _look_at_storages(self, namespace: str) -> None:
        """Tells once of each version of the storage Secret which entries cannot be used."""
        secret = await self.storages(namespace)
        if secret is None or not self._is_new(secret):
            return
        if entries := claims.unreadable(secret):
            message = f"Not a JSON object, and of no use to models that name it: {', '.join(entries)}"
            await self.recorder.event(secret, "Warning", "InvalidStorage", message)

    def _is_new(self, secret: Secret) -> bool:
        key, version = (secret.namespace, secret.name), secret.metadata.resource_version
        known, self._looked_at[key] = self._looked_at.get(key), version
        return known != version

    async def _remove(self, live: KubeObject | None) -> None:
        if live is not None and marks.made_by(live, self.scope.own):
            await ensure_absent(self.client, live)

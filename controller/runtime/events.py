"""Events: what `kubectl describe` shows under an object and `kubectl get events` lists.

The same event again (same object, type, reason and message) raises the count of the first instead of making
another object; many that differ in their message alone become one, and floods are cut (`similar_events`).
Events are news, not state: one that cannot be written is logged, and never fails a reconcile.
"""

from __future__ import annotations

import datetime as dt
import socket
from collections import OrderedDict
from typing import TYPE_CHECKING, Literal, NamedTuple

import structlog

from api.core import EVENT
from controller.runtime.errors import ClientError, NotFound
from controller.runtime.similar_events import SimilarEvents

if TYPE_CHECKING:
    from collections.abc import Callable

    from api.meta import KubeObject
    from controller.runtime.client import JSON, Client

EventKind = Literal["Normal", "Warning"]

_log = structlog.get_logger(__name__)

_REMEMBERED = 4096
"""Events whose count can still be raised; client-go remembers as many."""
_MAX_MESSAGE = 1024
"""Characters; the API server refuses longer messages."""
_COMBINED = "(combined from similar events): "
_MAX_NAME = 253
"""Characters of an object's name."""


class _Key(NamedTuple):
    uid: str
    namespace: str
    kind: str
    name: str
    type: str
    reason: str
    message: str


class EventRecorder:
    """Creates core/v1 Events.

    Args:
        client: the API server.
        component: who reports, as shown in the FROM column.
        now: the present time, with time zone.
    """

    def __init__(
        self,
        client: Client,
        component: str,
        *,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._client = client
        self._component = component
        self._now = now
        self._instance = socket.gethostname()
        self._seen: OrderedDict[_Key, tuple[str, int]] = OrderedDict()  # name and count of the event
        self._similar = SimilarEvents()
        self._last = 0

    async def event(self, obj: KubeObject, type: EventKind, reason: str, message: str) -> None:  # noqa: A002
        """Report something that happened to `obj`.

        Args:
            obj: the object it is about.
            type: Normal or Warning.
            reason: one word in CamelCase, for programs.
            message: a sentence for people; cut at 1024 characters.
        """
        meta = obj.metadata
        message = message[:_MAX_MESSAGE]
        key = _Key(meta.uid, meta.namespace, obj.kind, meta.name, type, reason, message)
        seconds = self._now().timestamp()
        if not self._similar.allowed(key[:4], seconds):
            _log.debug("too many events about one object; dropping this one", reason=reason, name=meta.name)
            return
        if self._similar.combined(key._replace(message=""), message, seconds):
            key = key._replace(message=_COMBINED)
            message = (_COMBINED + message)[:_MAX_MESSAGE]
        try:
            if not await self._count(key, message):
                await self._create(key, obj, message)
        except ClientError as error:
            _log.warning(
                "cannot write event",
                kind=obj.kind,
                namespace=meta.namespace,
                name=meta.name,
                reason=reason,
                message=message,
                error=str(error),
            )

    async def _count(self, key: _Key, message: str) -> bool:
        """Raise the count of an earlier event; False when there is none, or it has expired."""
        if key not in self._seen:
            return False
        name, count = self._seen.pop(key)
        patch: JSON = {
            "count": count + 1,
            "lastTimestamp": _timestamp(self._now()),
            "message": message,
        }
        try:
            await self._client.patch(EVENT, name, _namespace(key), patch)
        except NotFound:
            return False
        self._seen[key] = (name, count + 1)
        return True

    async def _create(self, key: _Key, obj: KubeObject, message: str) -> None:
        now = self._now()
        # Distinct even when the clock stands still: the name must be.
        self._last = max(self._last + 1, int(now.timestamp() * 1_000_000_000))
        suffix = f".{self._last:x}"
        name = key.name[: _MAX_NAME - len(suffix)].rstrip("-.") + suffix
        timestamp = _timestamp(now)
        await self._client.create(
            EVENT,
            {
                "apiVersion": EVENT.api_version,
                "kind": EVENT.kind,
                "metadata": {"name": name, "namespace": _namespace(key)},
                "involvedObject": {
                    "apiVersion": obj.api_version,
                    "kind": obj.kind,
                    "name": key.name,
                    "namespace": key.namespace,
                    "uid": key.uid,
                    "resourceVersion": obj.metadata.resource_version,
                },
                "type": key.type,
                "reason": key.reason,
                "message": message,
                "count": 1,
                "firstTimestamp": timestamp,
                "lastTimestamp": timestamp,
                "source": {"component": self._component},
                "reportingComponent": self._component,
                "reportingInstance": self._instance,
            },
        )
        self._seen[key] = (name, 1)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)


def _namespace(key: _Key) -> str:
    """Where the event is kept: for cluster-scoped objects `default`, where kubectl looks for it."""
    return key.namespace or "default"


def _timestamp(when: dt.datetime) -> str:
    return when.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

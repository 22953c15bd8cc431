"""An API server in memory: the semantics of the Kubernetes API without its transport.

It is the fake behind tests (through `MemoryClient`) and, behind the HTTP facade of local mode, a server that
`kubectl` talks to. All methods are synchronous and atomic on one event loop; only `watch` waits.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from api.core import CRD, EVENT, NAMESPACE
from controller.runtime.apiserver import decoding, fields, metadata, patches, queries, scaling
from controller.runtime.apiserver.builtins import BUILTINS
from controller.runtime.apiserver.decoding import WriteOptions
from controller.runtime.apiserver.definitions import served_kinds
from controller.runtime.apiserver.kinds import Registry, ServedKind
from controller.runtime.apiserver.queries import ListQuery, Page, WatchQuery
from controller.runtime.apiserver.schema import required
from controller.runtime.apiserver.store import Change, Key, Snapshot, Store
from controller.runtime.apiserver.values import copy_json, get_path
from controller.runtime.client import PatchKind
from controller.runtime.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    NotFound,
    UnsupportedMediaType,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from api.resource import Resource
    from controller.runtime.client import JSON, JSONPatch

_BOOKMARK_SECONDS: Final = 60.0
"""How often an idle watch gets a bookmark; kube-apiserver's rate."""
_EVENT_LIFETIME: Final = timedelta(hours=1)
"""How long Event objects are kept; kube-apiserver's `--event-ttl`."""
_GRACE_SECONDS: Final = 30
_STALE: Final = "the object has been modified; please apply your changes to the latest version and try again"


class AdmissionRequest(NamedTuple):
    """A write about to be stored. `new` is None for a deletion, `old` for a creation."""

    kind: ServedKind
    operation: str
    new: JSON | None
    old: JSON | None
    subresource: str


class DeleteOptions(NamedTuple):
    """Options of a deletion; empty preconditions are not checked.

    Attributes:
        resource_version: delete only this version of the object.
        uid: delete only this incarnation of the object.
        propagation: `Background`, `Foreground` or `Orphan`; the last two leave a finalizer for the collector of
            owned objects.
        grace_seconds: 0 removes at once an object whose kind is deleted gracefully (a pod on a node).
        dry_run: check and answer, remove nothing.
    """

    resource_version: str = ""
    uid: str = ""
    propagation: str = "Background"
    grace_seconds: int | None = None
    dry_run: bool = False


class WatchItem(NamedTuple):
    """One event of a watch: its type and the object."""

    type: str
    snapshot: Snapshot


class Core:
    """The server.

    Args:
        clock: the present time, with time zone.
        history: changes of each resource that a watch can start from.
        first_version: the resourceVersion before the first write; see `Store`.
        namespaces: created at the start, besides `default` and `kube-system`.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        history: int = 4096,
        first_version: int = 0,
        namespaces: Iterable[str] = (),
    ) -> None:
        self.clock = clock
        self.kinds = Registry()
        self._store = Store(history=history, first_version=first_version)
        self._validators: list[Callable[[AdmissionRequest], None]] = []
        for kind in BUILTINS:
            self.kinds.add(kind)
        for name in ("default", "kube-system", *namespaces):
            self.create(self.kind(NAMESPACE), {"metadata": {"name": name}})

    def kind(self, resource: Resource) -> ServedKind:
        """Return what is served for `resource`; NotFound when its CustomResourceDefinition is not there."""
        return self.kinds.find(resource.group, resource.version, resource.plural)

    def register_definition(self, definition: JSON) -> None:
        """Create or update a CustomResourceDefinition, from here on served."""
        kind = self.kind(CRD)
        try:
            self.create(kind, definition)
        except AlreadyExists:
            self.replace(kind, definition)

    def add_validator(self, validator: Callable[[AdmissionRequest], None]) -> None:
        """Have `validator` see each write before it is stored; it raises an ApiError to refuse it."""
        self._validators.append(validator)

    @property
    def version(self) -> int:
        """The present resourceVersion of the whole server."""
        return self._store.version

    def close(self) -> None:
        """End all watches, so that a server in front of it can stop."""
        self._store.close_subscriptions()

    # Reading

    def get(self, kind: ServedKind, name: str, namespace: str = "", *, subresource: str = "") -> Snapshot:
        """Return one object, or a subresource of it; NotFound when it is not there."""
        found = self._store.get(kind.storage_key, (namespace, name))
        if found is None:
            raise NotFound.of(kind.resource, name)
        if subresource == "scale":
            return Snapshot(scaling.read(kind, found.object))
        self._check_subresource(kind, subresource)
        return _in_version(kind, found)

    def list(self, kind: ServedKind, namespace: str = "", query: ListQuery | None = None) -> Page:
        """Return one page; Gone when its token has expired."""
        query = query or ListQuery()
        matches = queries.predicate(kind, query.label_selector, query.field_selector)
        version = self._store.version
        rows = self._store.scan(kind.storage_key, namespace)
        if query.continue_token:
            token = queries.decode_token(query.continue_token)
            version = token.version
            try:
                self._store.check_version(kind.storage_key, version)
            except Gone:
                raise queries.expired() from None
            rows = [row for row in rows if row[0] > tuple(token.last)]
        rows = [row for row in rows if matches(row[1].object)]
        page = rows[: query.limit] if query.limit > 0 else rows
        items = [_in_version(kind, snapshot) for _, snapshot in page]
        if len(page) == len(rows):
            return Page(items, version)
        return Page(items, version, queries.encode_token(version, page[-1][0]), len(rows) - len(page))

    async def watch(
        self,
        kind: ServedKind,
        namespace: str = "",
        query: WatchQuery | None = None,
    ) -> AsyncGenerator[list[WatchItem], None]:
        """Yield batches of events until the time is over; Gone when the version to start from is too old."""
        query = query or WatchQuery()
        matches = queries.predicate(kind, query.label_selector, query.field_selector)
        version = queries.parse_version(query.resource_version)
        initial = query.send_initial_events or not version
        subscription = self._store.subscribe(kind.storage_key, self.version if initial else version)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + query.timeout_seconds
        try:
            if initial:
                present = [
                    WatchItem("ADDED", _in_version(kind, snapshot))
                    for _, snapshot in self._store.scan(kind.storage_key, namespace)
                    if matches(snapshot.object)
                ]
                if query.send_initial_events:
                    present.append(self._bookmark(kind, initial_events_end=True))
                yield present
            while (remaining := deadline - loop.time()) > 0 and not subscription.closed:
                changes = await subscription.drain(min(remaining, _BOOKMARK_SECONDS))
                events = [
                    event
                    for change in changes
                    if (not namespace or change.snapshot.object["metadata"].get("namespace") == namespace)
                    and (event := _event(kind, change, matches))
                ]
                if events:
                    yield events
                elif query.bookmarks and not changes:
                    yield [self._bookmark(kind)]
        finally:
            self._store.unsubscribe(kind.storage_key, subscription)

    def _bookmark(self, kind: ServedKind, *, initial_events_end: bool = False) -> WatchItem:
        meta: JSON = {"resourceVersion": str(self.version), "creationTimestamp": None}
        if initial_events_end:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        resource = kind.resource
        obj = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta}
        return WatchItem("BOOKMARK", Snapshot(obj))

    # Writing

    def create(
        self,
        kind: ServedKind,
        obj: JSON,
        namespace: str = "",
        options: WriteOptions | None = None,
    ) -> Snapshot:
        """Create an object and return it as stored."""
        options = options or WriteOptions()
        new = self._accept(kind, obj, namespace)
        if new["metadata"].get("resourceVersion"):
            raise BadRequest("resourceVersion should not be set on objects to be created")
        self._check_namespace(kind, new)
        decoding.decode(kind, new, options)
        if kind.has_status:
            new.pop("status", None)
        metadata.begin(new, self.clock())
        if kind.generations:
            new["metadata"]["generation"] = 1
        decoding.complete(kind, new)
        decoding.check(kind, new, None)
        key = _key(new)
        if self._store.get(kind.storage_key, key):
            raise AlreadyExists.of(kind.resource, key[1])
        self._admit(AdmissionRequest(kind, "CREATE", new, None, ""))
        fields.track(kind, None, new, options.field_manager, "", self.clock())
        if options.dry_run:
            return Snapshot(new)
        self._drop_expired(kind)
        snapshot = self._store.put(kind.storage_key, key, new)
        self._written(kind, snapshot.object)
        return snapshot

    def replace(
        self,
        kind: ServedKind,
        obj: JSON,
        namespace: str = "",
        *,
        subresource: str = "",
        options: WriteOptions | None = None,
    ) -> Snapshot:
        """Write a whole object; Conflict when it carries a resourceVersion that is not the present one."""
        new = self._accept(kind, obj, namespace) if subresource != "scale" else copy_json(obj)
        name = new["metadata"].get("name", "")
        old = self.get(kind, name, namespace or new["metadata"].get("namespace", "")).object
        if subresource == "scale":
            new = scaling.write(kind, old, new)
        elif kind.custom and not new["metadata"].get("resourceVersion"):
            cause = required("metadata.resourceVersion", "must be specified for an update")
            raise decoding.refusal(kind, name, [cause])
        return self._update(kind, old, new, subresource, options or WriteOptions())

    def patch(
        self,
        kind: ServedKind,
        name: str,
        namespace: str,
        patch: JSON | JSONPatch,
        patch_kind: PatchKind,
        *,
        subresource: str = "",
        options: WriteOptions | None = None,
    ) -> Snapshot:
        """Change part of an object."""
        old = self.get(kind, name, namespace).object
        target = scaling.read(kind, old) if subresource == "scale" else old
        new: Any
        if isinstance(patch, list) != (patch_kind is PatchKind.JSON):
            raise BadRequest(f"a patch of type {patch_kind} is a list of operations only for JSON patch")
        if isinstance(patch, list):
            new = patches.json_patch(target, patch)
        elif patch_kind is PatchKind.MERGE:
            new = patches.merge(target, patch)
        elif kind.custom:
            raise UnsupportedMediaType(
                "the body of the request was in an unknown format - accepted media types include: "
                f"{PatchKind.JSON}, {PatchKind.MERGE}, application/apply-patch+yaml",
            )
        else:
            new = patches.strategic(target, patch)
        if subresource == "scale":
            new = scaling.write(kind, old, new)
        else:
            new = self._accept(kind, new, namespace)
        return self._update(kind, old, new, subresource, options or WriteOptions())

    def delete(
        self,
        kind: ServedKind,
        name: str,
        namespace: str = "",
        options: DeleteOptions = DeleteOptions(),  # noqa: B008 -- a named tuple
    ) -> tuple[Snapshot, bool]:
        """Delete an object; return its last state and whether it is gone, or only marked for deletion."""
        found = self.get(kind, name, namespace)
        old = found.object
        meta = old["metadata"]
        if options.uid and options.uid != meta["uid"]:
            cause = (
                f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {meta['uid']}"
            )
            raise Conflict.of(kind.resource, name, cause)
        if options.resource_version and options.resource_version != meta["resourceVersion"]:
            raise Conflict.of(kind.resource, name, _STALE)
        self._admit(AdmissionRequest(kind, "DELETE", None, old, ""))
        new = copy_json(old)
        holds = new["metadata"].get("finalizers") or []
        holds = [hold for hold in holds if hold not in {metadata.FOREGROUND, metadata.ORPHAN}]
        if options.propagation == "Foreground":
            holds.append(metadata.FOREGROUND)
        elif options.propagation == "Orphan":
            holds.append(metadata.ORPHAN)
        if kind.graceful(old) and options.grace_seconds != 0:
            default_grace = get_path(old, "spec", "terminationGracePeriodSeconds") or _GRACE_SECONDS
            grace = default_grace if options.grace_seconds is None else options.grace_seconds
        else:
            grace = 0
        waits = bool(holds or grace or (kind.resource == NAMESPACE and self._store.tables_of(name)))
        if options.dry_run:
            return found, not waits
        if not waits:
            return self._remove(kind, new), True
        if not meta.get("deletionTimestamp") or grace < meta.get("deletionGracePeriodSeconds", 0):
            moment = self.clock() + timedelta(seconds=grace)
            new["metadata"]["deletionTimestamp"] = metadata.timestamp(moment)
            new["metadata"]["deletionGracePeriodSeconds"] = grace
            if "generation" in meta:
                new["metadata"]["generation"] += 1
        if holds:
            new["metadata"]["finalizers"] = holds
        if kind.resource == NAMESPACE:
            new["status"] = {**(new.get("status") or {}), "phase": "Terminating"}
        if new == old:
            return found, False
        snapshot = self._store.put(kind.storage_key, _key(old), new)
        if kind.resource == NAMESPACE:
            self._empty_namespace(name)
        return snapshot, False

    # What all writes share

    def _accept(self, kind: ServedKind, obj: Any, namespace: str) -> JSON:
        """Copy an object that a client sent and check that it is what the request is about."""
        resource = kind.resource
        if not isinstance(obj, dict) or not isinstance(obj.get("metadata", {}), dict | None):
            raise BadRequest(f"the body is no object of kind {resource.kind}")
        new: JSON = {"apiVersion": resource.api_version, "kind": resource.kind, **copy_json(obj)}
        if new["kind"] != resource.kind or new["apiVersion"] != resource.api_version:
            raise BadRequest(
                f"the object provided is unrecognized (must be of type {resource.kind}): it is "
                f"{new['apiVersion']}, Kind={new['kind']}, expected {resource.api_version}, Kind={resource.kind}",
            )
        meta = new["metadata"] = new.get("metadata") or {}
        if not resource.namespaced:
            meta.pop("namespace", None)
            return new
        if namespace and meta.setdefault("namespace", namespace) != namespace:
            raise BadRequest(
                f"the namespace of the provided object does not match the namespace sent on the request: "
                f"{meta['namespace']} and {namespace}",
            )
        if not meta.get("namespace"):
            raise BadRequest("an empty namespace may not be set when a resource name may be provided")
        return new

    def _check_namespace(self, kind: ServedKind, new: JSON) -> None:
        if not kind.resource.namespaced:
            return
        name = new["metadata"]["namespace"]
        namespace = self.get(self.kind(NAMESPACE), name).object
        if namespace["metadata"].get("deletionTimestamp"):
            raise Forbidden(
                f'{kind.resource.plural} "{new["metadata"].get("name", "")}" is forbidden: unable to create new '
                f"content in namespace {name} because it is being terminated",
            )

    @staticmethod
    def _check_subresource(kind: ServedKind, subresource: str) -> None:
        if subresource and not (subresource == "status" and kind.has_status):
            raise NotFound("the server could not find the requested resource", details={"kind": subresource})

    def _update(
        self,
        kind: ServedKind,
        old: JSON,
        new: JSON,
        subresource: str,
        options: WriteOptions,
    ) -> Snapshot:
        """Check a changed object against the present one and store it."""
        meta, name = new["metadata"], old["metadata"]["name"]
        if subresource != "scale":
            self._check_subresource(kind, subresource)
        if meta.get("name", name) != name:
            raise BadRequest(
                f"the name of the object ({meta['name']}) does not match the name on the URL ({name})"
            )
        if meta.get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
            was = old["metadata"]["uid"]
            cause = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {was}"
            raise Conflict.of(kind.resource, name, cause)
        if (
            meta.get("resourceVersion", old["metadata"]["resourceVersion"])
            != old["metadata"]["resourceVersion"]
        ):
            raise Conflict.of(kind.resource, name, _STALE)
        decoding.decode(kind, new, options)
        if subresource == "status":
            new = {**copy_json(old), "status": new.get("status")}
            if new["status"] is None:
                del new["status"]
        elif kind.has_status:
            new.pop("status", None)
            if "status" in old:
                new["status"] = copy_json(old["status"])
        metadata.keep_server_fields(new, old)
        decoding.complete(kind, new)
        if kind.generations and _desired(kind, new) != _desired(kind, old):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        decoding.check(kind, new, old)
        self._admit(AdmissionRequest(kind, "UPDATE", new, old, subresource))
        fields.track(kind, old, new, options.field_manager, subresource, self.clock())
        if new == old:
            return self.get(kind, name, old["metadata"].get("namespace", ""))
        if options.dry_run:
            return Snapshot(new)
        if self._finished(kind, new):
            return self._remove(kind, new)
        snapshot = self._store.put(kind.storage_key, _key(new), new)
        self._written(kind, snapshot.object)
        return snapshot

    def _finished(self, kind: ServedKind, obj: JSON) -> bool:
        """Whether an object marked for deletion has nothing left that holds it."""
        meta = obj["metadata"]
        if not meta.get("deletionTimestamp") or metadata.finalizers(obj):
            return False
        if kind.resource == NAMESPACE and self._store.tables_of(meta["name"]):
            return False
        return not meta.get("deletionGracePeriodSeconds")

    def _admit(self, request: AdmissionRequest) -> None:
        for validator in self._validators:
            validator(request)

    def _written(self, kind: ServedKind, obj: JSON) -> None:
        if kind.resource == CRD:
            for served in served_kinds(obj):
                self.kinds.add(served)

    def _remove(self, kind: ServedKind, last: JSON) -> Snapshot:
        key = _key(last)
        snapshot = self._store.remove(kind.storage_key, key, last)
        if kind.resource == CRD:
            self._remove_definition(last)
        elif key[0]:
            self._finish_namespace(key[0])
        return snapshot

    def _remove_definition(self, definition: JSON) -> None:
        table = definition["spec"]["group"], definition["spec"]["names"]["plural"]
        for key, snapshot in self._store.scan(table):
            self._store.remove(table, key, copy_json(snapshot.object))
        self.kinds.remove_all(*table)
        self._store.close_subscriptions(table)

    def _empty_namespace(self, name: str) -> None:
        for kind in list(self.kinds):
            if kind.resource.namespaced:
                for key, _ in self._store.scan(kind.storage_key, name):
                    self.delete(kind, key[1], name)
        self._finish_namespace(name)

    def _finish_namespace(self, name: str) -> None:
        kind = self.kind(NAMESPACE)
        namespace = self._store.get(kind.storage_key, ("", name))
        if namespace and self._finished(kind, namespace.object):
            self._remove(kind, copy_json(namespace.object))

    def _drop_expired(self, kind: ServedKind) -> None:
        """Forget old Events, so that a long-lived server does not grow."""
        if kind.resource != EVENT:
            return
        oldest = metadata.timestamp(self.clock() - _EVENT_LIFETIME)
        for key, snapshot in self._store.oldest_first(kind.storage_key):
            seen = snapshot.object.get("lastTimestamp") or snapshot.object["metadata"]["creationTimestamp"]
            if seen >= oldest:
                break
            self._store.remove(kind.storage_key, key, copy_json(snapshot.object))


def _key(obj: JSON) -> Key:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _desired(kind: ServedKind, obj: JSON) -> Any:
    """Return the part of an object whose change counts as a new generation."""
    if not kind.custom:
        return obj.get("spec")
    return {key: value for key, value in obj.items() if key not in {"metadata", "status", "apiVersion"}}


def _in_version(kind: ServedKind, snapshot: Snapshot) -> Snapshot:
    """Return an object in the version that was asked for; versions of a definition differ in name only."""
    api_version = kind.resource.api_version
    if snapshot.object["apiVersion"] == api_version:
        return snapshot
    return Snapshot({**snapshot.object, "apiVersion": api_version})


def _event(kind: ServedKind, change: Change, matches: Callable[[JSON], bool]) -> WatchItem | None:
    """Return what a watcher with a selector sees of a change: an object may enter or leave its selection."""
    fits = matches(change.snapshot.object)
    fitted = change.previous is not None and matches(change.previous.object)
    snapshot = _in_version(kind, change.snapshot)
    if change.type == "DELETED":
        return WatchItem("DELETED", snapshot) if fitted else None
    if fits:
        return WatchItem("MODIFIED" if fitted else "ADDED", snapshot)
    return WatchItem("DELETED", snapshot) if fitted else None

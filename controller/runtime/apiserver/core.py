"""An API server in memory: the semantics of the Kubernetes API without its transport.

It is the fake behind tests (through `MemoryClient`) and, behind the HTTP facade of local mode, a server that
`kubectl` talks to. All methods are synchronous and atomic on one event loop; only `watch` waits.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from api.core import CRD, EVENT, NAMESPACE
from controller.runtime.apiserver import (
    decoding,
    deletion,
    metadata,
    ownership,
    patches,
    queries,
    requests,
    scaling,
    subresources,
    watching,
)
from controller.runtime.apiserver.builtins import BUILTINS
from controller.runtime.apiserver.decoding import WriteOptions
from controller.runtime.apiserver.definitions import served_kinds
from controller.runtime.apiserver.deletion import DeleteOptions
from controller.runtime.apiserver.kinds import Registry, ServedKind
from controller.runtime.apiserver.ownership import Owner
from controller.runtime.apiserver.queries import ListQuery, Page, WatchQuery
from controller.runtime.apiserver.schema import required
from controller.runtime.apiserver.store import Key, Snapshot, Store
from controller.runtime.apiserver.values import copy_json
from controller.runtime.errors import (
    AlreadyExists,
    BadRequest,
    Forbidden,
    Gone,
    NotFound,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from api.resource import Resource
    from controller.runtime.apiserver.watching import Batch
    from controller.runtime.client import JSON, JSONPatch, PatchKind

_EVENT_LIFETIME: Final = timedelta(hours=1)
"""How long Event objects are kept; kube-apiserver's `--event-ttl`."""


class AdmissionRequest(NamedTuple):
    """A write about to be stored. `new` is None for a deletion, `old` for a creation."""

    kind: ServedKind
    operation: str
    new: JSON | None
    old: JSON | None
    subresource: str = ""


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
        """Create or update a CustomResourceDefinition; what it defines is served from here on."""
        options = WriteOptions(field_manager="api-server")
        self.apply(self.kind(CRD), definition, "", force=True, options=options)

    def add_validator(self, validator: Callable[[AdmissionRequest], None]) -> None:
        """Have `validator` see each write before it is stored; it raises an ApiError to refuse it."""
        self._validators.append(validator)

    def close(self) -> None:
        """End all watches, so that a server in front of it can stop."""
        self._store.close_subscriptions()

    def forget_history(self) -> None:
        """Answer watches and continue tokens from before now with Gone, as after a compaction of etcd."""
        self._store.forget_history()

    # Reading

    def get(self, kind: ServedKind, name: str, namespace: str = "", *, subresource: str = "") -> Snapshot:
        """Return one object, or a subresource of it; NotFound when it is not there."""
        found = self._store.get(kind.storage_key, (namespace, name))
        if found is None:
            raise NotFound.of(kind.resource, name)
        subresources.check(kind, subresource)
        return subresources.view(kind, found, subresource)

    def list(self, kind: ServedKind, namespace: str = "", query: ListQuery | None = None) -> Page:
        """Return one page; Gone when its token has expired."""
        query = query or ListQuery()
        matches = queries.predicate(kind, query.label_selector, query.field_selector)
        version = self._store.version
        rows = [row for row in self._store.scan(kind.storage_key, namespace) if matches(row[1].object)]
        if query.continue_token:
            token = queries.decode_token(query.continue_token)
            version = token.version
            try:
                self._store.check_version(kind.storage_key, version)
            except Gone:
                raise queries.expired() from None
            rows = [row for row in rows if row[0] > token.last]
        page = rows[: query.limit] if query.limit > 0 else rows
        items = [watching.in_version(kind, snapshot) for _, snapshot in page]
        if len(page) == len(rows):
            return Page(items, version)
        return Page(items, version, queries.encode_token(version, page[-1][0]), len(rows) - len(page))

    def watch(
        self,
        kind: ServedKind,
        namespace: str = "",
        query: WatchQuery | None = None,
    ) -> AsyncGenerator[Batch, None]:
        """Yield batches of events until the time is over; Gone when the version to start from is too old."""
        return watching.watch(self._store, kind, namespace, query or WatchQuery())

    # Writing

    def create(
        self,
        kind: ServedKind,
        obj: JSON,
        namespace: str = "",
        options: WriteOptions | None = None,
    ) -> Snapshot:
        """Create an object and return it as stored."""
        new = requests.accept(kind, obj, namespace)
        if new["metadata"].get("resourceVersion"):
            raise BadRequest("resourceVersion should not be set on objects to be created")
        return self._create(kind, new, options or WriteOptions())

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
        scale = subresource == "scale"
        new = copy_json(obj) if scale else requests.accept(kind, obj, namespace)
        meta = new["metadata"]
        old = self._present(kind, meta.get("name", ""), namespace or meta.get("namespace", ""))
        if scale:
            new = scaling.write(kind, old, new)
        elif kind.custom and not meta.get("resourceVersion"):
            cause = required("metadata.resourceVersion", "must be specified for an update")
            raise decoding.refusal(kind, meta.get("name", ""), [cause])
        requests.check_preconditions(kind, old, meta.get("uid") or "", "")
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
        old = self._present(kind, name, namespace)
        scale = subresource == "scale"
        new = patches.apply(scaling.read(kind, old) if scale else old, patch, patch_kind, custom=kind.custom)
        new = scaling.write(kind, old, new) if scale else requests.accept(kind, new, namespace)
        return self._update(kind, old, new, subresource, options or WriteOptions())

    def apply(
        self,
        kind: ServedKind,
        obj: JSON,
        namespace: str = "",
        *,
        force: bool,
        subresource: str = "",
        options: WriteOptions,
    ) -> Snapshot:
        """Make the manager named in `options` own exactly the fields of `obj`; create it if need be."""
        wanted = requests.accept(kind, obj, namespace)
        meta = wanted["metadata"]
        if meta.pop("managedFields", None):
            raise BadRequest("metadata.managedFields must be nil")
        if kind.has_status:
            wanted = subresources.applicable(wanted, subresource)
        found = self._store.get(kind.storage_key, (meta.get("namespace", ""), meta.get("name", "")))
        if found is None and subresource:
            raise NotFound.of(kind.resource, meta.get("name", ""))
        live = watching.in_version(kind, found).object if found else None
        owner = Owner(options.field_manager, "Apply", subresource)
        new = ownership.apply(kind, live, wanted, owner, self.clock(), force=force)
        if live is None:
            return self._create(kind, new, options, applied=True)
        return self._update(kind, live, copy_json(new), subresource, options, applied=True)

    def delete(
        self,
        kind: ServedKind,
        name: str,
        namespace: str = "",
        options: DeleteOptions | None = None,
    ) -> tuple[Snapshot, bool]:
        """Delete an object; return its last state and whether it is gone, or only marked for deletion."""
        options = options or DeleteOptions()
        found = self.get(kind, name, namespace)
        old = found.object
        requests.check_preconditions(kind, old, options.uid, options.resource_version)
        self._admit(AdmissionRequest(kind, "DELETE", None, old))
        new = deletion.mark(kind, old, options, self.clock())
        if kind.resource == NAMESPACE:
            new["status"] = {**(new.get("status") or {}), "phase": "Terminating"}
        gone = self._finished(kind, new)
        if options.dry_run:
            return found, gone
        if gone:
            return self._remove(kind, new), True
        if new == old:
            return found, False
        snapshot = self._store.put(kind.storage_key, _key(old), new)
        if kind.resource == NAMESPACE:
            self._empty_namespace(name)
        return snapshot, False

    # What all writes share

    def _present(self, kind: ServedKind, name: str, namespace: str) -> JSON:
        return self.get(kind, name, namespace).object

    def _create(
        self,
        kind: ServedKind,
        new: JSON,
        options: WriteOptions,
        *,
        applied: bool = False,
    ) -> Snapshot:
        """Check and store a new object, which the server owns from here on."""
        self._check_namespace(kind, new)
        decoding.decode(kind, new, None, options)
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
        self._admit(AdmissionRequest(kind, "CREATE", new, None))
        if not applied:
            ownership.track_update(kind, None, new, Owner(options.field_manager, "Update"), self.clock())
        if options.dry_run:
            return Snapshot(new)
        self._drop_expired(kind)
        return self._put(kind, new)

    def _update(
        self,
        kind: ServedKind,
        old: JSON,
        new: JSON,
        subresource: str,
        options: WriteOptions,
        *,
        applied: bool = False,
    ) -> Snapshot:
        """Check a changed object against the present one and store it."""
        subresources.check(kind, subresource)
        requests.check_identity(kind, old, new)
        decoding.decode(kind, new, old, options)
        managed = new["metadata"].get("managedFields")
        new = subresources.own_part(kind, old, new, subresource)
        metadata.keep_server_fields(new, old)
        decoding.complete(kind, new)
        if kind.generations and subresources.desired(kind, new) != subresources.desired(kind, old):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        decoding.check(kind, new, old)
        self._admit(AdmissionRequest(kind, "UPDATE", new, old, subresource))
        if applied:
            new["metadata"]["managedFields"] = managed
        else:
            owner = Owner(options.field_manager, "Update", subresource)
            ownership.track_update(kind, old, new, owner, self.clock())
        if new == old or options.dry_run:
            return subresources.view(kind, Snapshot(new), subresource)
        if self._finished(kind, new):
            return self._remove(kind, new)
        return subresources.view(kind, self._put(kind, new), subresource)

    def _check_namespace(self, kind: ServedKind, new: JSON) -> None:
        if not kind.resource.namespaced:
            return
        name = new["metadata"]["namespace"]
        namespace = self._present(self.kind(NAMESPACE), name, "")
        if namespace["metadata"].get("deletionTimestamp"):
            raise Forbidden(
                f'{kind.resource.plural} "{new["metadata"].get("name", "")}" is forbidden: unable to create '
                f"new content in namespace {name} because it is being terminated",
            )

    def _admit(self, request: AdmissionRequest) -> None:
        for validator in self._validators:
            validator(request)

    def _put(self, kind: ServedKind, new: JSON) -> Snapshot:
        snapshot = self._store.put(kind.storage_key, _key(new), new)
        if kind.resource == CRD:
            for served in served_kinds(snapshot.object):
                self.kinds.add(served)
        return snapshot

    def _finished(self, kind: ServedKind, obj: JSON) -> bool:
        """Whether an object marked for deletion has nothing left that holds it."""
        holds_objects = kind.resource == NAMESPACE and self._store.tables_of(obj["metadata"]["name"])
        return deletion.finished(obj) and not holds_objects

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

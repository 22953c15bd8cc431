"""Rules of `metadata`: names, labels, and the fields that belong to the server."""

from __future__ import annotations

import re
import secrets
import uuid
from typing import TYPE_CHECKING, Final

from controller.runtime.apiserver.schema import Cause, invalid, required

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from controller.runtime.client import JSON

_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SUBDOMAIN_RULE: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character"
)
_MAX_NAME: Final = 253
_LABEL_KEY: Final = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?")
_LABEL_RULE: Final = (
    "a valid label must be an empty string or consist of at most 63 alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character"
)
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?")
_SUFFIX_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
"""What kube-apiserver builds generated names from: nothing that reads like a word or mixes up."""

FIELD_TYPES: Final[dict[str, type]] = {
    "annotations": dict,
    "creationTimestamp": str,
    "deletionGracePeriodSeconds": int,
    "deletionTimestamp": str,
    "finalizers": list,
    "generateName": str,
    "generation": int,
    "labels": dict,
    "managedFields": list,
    "name": str,
    "namespace": str,
    "ownerReferences": list,
    "resourceVersion": str,
    "selfLink": str,
    "uid": str,
}
"""The fields of `metadata` and their types in JSON."""

_SERVER_OWNED: Final = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "resourceVersion",
    "selfLink",
    "uid",
)


def timestamp(moment: datetime) -> str:
    """Return a moment as the API writes it: UTC, whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def wrong_types(metadata: JSON) -> Iterator[str]:
    """Yield a sentence for each field of `metadata` that has another type than the API's."""
    for field, value in metadata.items():
        expected = FIELD_TYPES.get(field)
        if expected and value is not None and not isinstance(value, expected):
            yield f"metadata.{field}: expected {expected.__name__}, got {type(value).__name__}"
    for field in ("labels", "annotations"):
        values = metadata.get(field)
        for key, value in (values if isinstance(values, dict) else {}).items():
            if not isinstance(value, str):
                shown = type(value).__name__
                yield f"metadata.{field}.{key}: expected a string, got {shown}; put quotes around the value"


def drop_empty(metadata: JSON) -> None:
    """Remove, in place, empty optional fields, as the API server's encoder does."""
    for field in list(metadata):
        if metadata[field] in (None, "", [], {}):
            del metadata[field]


def begin(obj: JSON, now: datetime) -> None:
    """Give a new object, in place, its identity; a name where it asks for a generated one."""
    metadata = obj["metadata"]
    for field in _SERVER_OWNED:
        metadata.pop(field, None)
    if not metadata.get("name") and metadata.get("generateName"):
        suffix = "".join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(5))
        metadata["name"] = metadata["generateName"] + suffix
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = timestamp(now)


def keep_server_fields(new: JSON, old: JSON) -> None:
    """Undo, in place, what a client changed in fields of `metadata` that belong to the server."""
    for field in (*_SERVER_OWNED, "name", "namespace"):
        if field in old["metadata"]:
            new["metadata"][field] = old["metadata"][field]
        else:
            new["metadata"].pop(field, None)


def check(obj: JSON, old: JSON | None) -> Iterator[Cause]:
    """Yield what is wrong with the metadata of a new object, or a changed one."""
    metadata = obj["metadata"]
    name = metadata.get("name")
    if not name:
        yield required("metadata.name", "name or generateName is required")
    elif len(name) > _MAX_NAME or not _SUBDOMAIN.fullmatch(name):
        yield invalid("metadata.name", name, _SUBDOMAIN_RULE)
    yield from _check_labels(metadata.get("labels") or {})
    yield from _check_owners(metadata.get("ownerReferences") or [])
    if old and old["metadata"].get("deletionTimestamp"):
        added = set(metadata.get("finalizers") or ()) - set(old["metadata"].get("finalizers") or ())
        if added:
            rule = "no new finalizers can be added if the object is being deleted"
            message = f"Forbidden: {rule}, found new finalizers {sorted(added)}"
            yield Cause("metadata.finalizers", "FieldValueForbidden", message)


def _check_owners(owners: list[JSON]) -> Iterator[Cause]:
    for owner in owners:
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                yield invalid(f"metadata.ownerReferences.{field}", "", "must not be empty")
    controllers = [str(owner.get("name")) for owner in owners if owner.get("controller")]
    if len(controllers) > 1:
        rule = 'Only one reference can have Controller set to true. Found "true" in references for '
        yield invalid("metadata.ownerReferences", owners, rule + " and ".join(controllers[:2]))


def _check_labels(labels: JSON) -> Iterator[Cause]:
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            yield invalid("metadata.labels", key, "is no valid label key (name, or prefix/name)")
        if not _LABEL_VALUE.fullmatch(value):
            yield invalid("metadata.labels", value, _LABEL_RULE)

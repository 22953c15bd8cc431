"""Ready-made answers to "does this change matter?", for `Controller.watches(..., predicate=...)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from api.meta import KubeObject


def generation_changed(old: KubeObject | None, new: KubeObject | None) -> bool:
    """Created, deleted, or changed in its spec; not: status and metadata alone."""
    return old is None or new is None or old.metadata.generation != new.metadata.generation


def labels_changed(old: KubeObject | None, new: KubeObject | None) -> bool:
    """Created, deleted, or changed in its labels."""
    return old is None or new is None or old.metadata.labels != new.metadata.labels


def annotations_changed(old: KubeObject | None, new: KubeObject | None) -> bool:
    """Created, deleted, or changed in its annotations."""
    return old is None or new is None or old.metadata.annotations != new.metadata.annotations


def deletion_requested(old: KubeObject | None, new: KubeObject | None) -> bool:
    """Deleted, or marked for deletion and held by finalizers."""
    if old is None or new is None:
        return new is None
    return old.metadata.deletion_timestamp != new.metadata.deletion_timestamp


def any_of(
    *predicates: Callable[[KubeObject | None, KubeObject | None], bool],
) -> Callable[[KubeObject | None, KubeObject | None], bool]:
    """Any of `predicates` says that the change matters."""
    return lambda old, new: any(predicate(old, new) for predicate in predicates)

"""An in-memory Kubernetes API server for tests and local mode; `MemoryClient` talks to it without HTTP."""

from controller.runtime.apiserver.core import AdmissionRequest, Core
from controller.runtime.apiserver.decoding import FieldValidation, WriteOptions
from controller.runtime.apiserver.deletion import DeleteOptions
from controller.runtime.apiserver.kinds import Column, ServedKind
from controller.runtime.apiserver.memory_client import MemoryClient
from controller.runtime.apiserver.queries import ListQuery, Page, WatchQuery
from controller.runtime.apiserver.store import Snapshot
from controller.runtime.apiserver.tables import partial_metadata, table
from controller.runtime.apiserver.watching import WatchItem

__all__ = [
    "AdmissionRequest",
    "Column",
    "Core",
    "DeleteOptions",
    "FieldValidation",
    "ListQuery",
    "MemoryClient",
    "Page",
    "ServedKind",
    "Snapshot",
    "WatchItem",
    "WatchQuery",
    "WriteOptions",
    "partial_metadata",
    "table",
]

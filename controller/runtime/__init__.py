"""controller-runtime for Python: what an operator needs between a Kubernetes API and its reconcilers.

An operator is a few reconcilers, registered with a manager:

    async with await load_client() as client:
        manager = Manager(client)
        Controller("backup", BackupReconciler(manager)).watches(Backup).owns(Job).register(manager)
        await manager.run()

The parts, each a module that can be used by itself: `client` (the protocol; `http_client` for a real API
server, `apiserver` for one in memory), `errors`, `reflector` (list and watch), `informer` and `cache` (typed,
indexed copies), `queue` and `backoff`, `controller`, `predicate`, `manager`, `leader` and `fence`
(one of several acts), `apply` (write only differences), `retry`, `finalizers`, `events`, `testing` (a real
API server). Types are subclasses of `api.meta.KubeObject`.

Nothing here knows what an operator is for.
"""

from controller.runtime.apply import Ensured, ensure, ensure_absent
from controller.runtime.cache import Cache
from controller.runtime.client import Client, ListPage, PatchKind, WatchEvent
from controller.runtime.controller import Controller, controller_of, request_for
from controller.runtime.events import EventRecorder
from controller.runtime.finalizers import add_finalizer, remove_finalizer
from controller.runtime.http_client import HttpClient, load_client
from controller.runtime.informer import Informer, Lister, Scope
from controller.runtime.leader import LeadershipLostError, LeaseLock
from controller.runtime.manager import Manager
from controller.runtime.queue import WorkQueue
from controller.runtime.reconcile import Reconciler, Request, Result

__all__ = [
    "Cache",
    "Client",
    "Controller",
    "Ensured",
    "EventRecorder",
    "HttpClient",
    "Informer",
    "LeadershipLostError",
    "LeaseLock",
    "ListPage",
    "Lister",
    "Manager",
    "PatchKind",
    "Reconciler",
    "Request",
    "Result",
    "Scope",
    "WatchEvent",
    "WorkQueue",
    "add_finalizer",
    "controller_of",
    "ensure",
    "ensure_absent",
    "load_client",
    "remove_finalizer",
    "request_for",
]

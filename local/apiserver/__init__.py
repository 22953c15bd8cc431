"""The Kubernetes API over HTTP, in front of the in-memory core: what `kubectl` and the controller talk to."""

from local.apiserver.errors import AddressInUse
from local.apiserver.kubeconfig import write_kubeconfig
from local.apiserver.logs import LogRequest, PodLogs
from local.apiserver.server import LocalApiServer

__all__ = ["AddressInUse", "LocalApiServer", "LogRequest", "PodLogs", "write_kubeconfig"]

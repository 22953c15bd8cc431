"""The pod runner: a slice of the kubelet that runs pods as processes of this machine.

One worker a pod (`pod_worker.py`). As on a real cluster, a deleted pod stays, Terminating, until its
processes are gone and the runner lets it go. Reads go straight to the API server, which is in this process,
so there is no cache between.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from api.core import POD, ConfigMap, Pod, Secret
from controller.runtime.errors import NotFound
from controller.runtime.reconcile import Request, Result
from local.pod_worker import PodWorker, references, release_pod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from controller.runtime.apiserver import MemoryClient
    from controller.runtime.events import EventRecorder
    from local.node import Node

_DEFAULT_GRACE_SECONDS = 30
"""Kubernetes' default of `terminationGracePeriodSeconds`."""


class PodRunner:
    """Reconciles pods with the processes of this machine."""

    def __init__(self, client: MemoryClient, node: Node, recorder: EventRecorder) -> None:
        self._client = client
        self._node = node
        self._recorder = recorder
        self._workers: dict[Request, PodWorker] = {}

    async def reconcile(self, request: Request) -> Result:
        """Start, refresh or stop the worker of one pod."""
        try:
            pod: Pod | None = Pod.parse(await self._client.get(POD, request.name, request.namespace))
        except NotFound:
            pod = None
        worker = self._workers.get(request)
        if worker is not None and (pod is None or pod.metadata.uid != worker.pod.metadata.uid):
            worker.stop(0)
            await worker.finished()
            del self._workers[request]
            worker = None
        if pod is None:
            return Result()
        if pod.metadata.deletion_timestamp:
            if worker is None:
                await release_pod(self._client, pod)
            else:
                worker.stop(_grace_of(pod))
        elif worker is None:
            self._workers[request] = PodWorker(pod, self._client, self._node, self._recorder)
        else:
            worker.refresh()
        return Result()

    def users_of(self, source: Secret | ConfigMap) -> Iterator[Request]:
        """Yield the pods that use a Secret or ConfigMap."""
        for request, worker in self._workers.items():
            if request.namespace == source.namespace and (source.kind, source.name) in references(worker.pod):
                yield request

    async def close(self, grace: float, keep: Callable[[Pod], bool] = lambda _pod: False) -> None:
        """Stop all pods but those to `keep`, each within `grace` seconds; their objects stay."""
        workers = [worker for worker in self._workers.values() if not keep(worker.pod)]
        for worker in workers:
            worker.stop(grace, keep_object=True)
        await asyncio.gather(*(worker.finished() for worker in workers))


def _grace_of(pod: Pod) -> float:
    for seconds in (pod.metadata.deletion_grace_period_seconds, pod.spec.termination_grace_period_seconds):
        if seconds is not None:
            return float(seconds)
    return float(_DEFAULT_GRACE_SECONDS)

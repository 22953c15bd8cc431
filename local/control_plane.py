"""The reconcilers that stand for kube-controller-manager and the kubelet, on one manager."""

from __future__ import annotations

from typing import TYPE_CHECKING

from api.core import ConfigMap, Deployment, Endpoints, Pod, Secret, Service
from api.v1alpha1 import ClusterServingRuntime, Predictor, ServingRuntime
from api.v1beta1 import InferenceService
from controller.runtime.controller import Controller
from controller.runtime.events import EventRecorder
from controller.runtime.manager import Manager
from controller.runtime.predicate import deletion_requested
from controller.runtime.reconcile import Request
from local import garbage
from local.endpoints import EndpointsReconciler
from local.garbage import GarbageCollector
from local.pods import PodRunner
from local.workloads import DeploymentReconciler

if TYPE_CHECKING:
    from collections.abc import Iterable

    from api.meta import KubeObject
    from controller.runtime.apiserver import MemoryClient
    from local.node import Node

CUSTOM = (ClusterServingRuntime, InferenceService, Predictor, ServingRuntime)
_STOP_SECONDS = 1.0
"""What reconciles under way get when everything stops; each is one step of a few milliseconds."""


def control_plane(
    client: MemoryClient, node: Node, owners: Iterable[type[KubeObject]] = CUSTOM
) -> tuple[Manager, PodRunner]:
    """Return a manager, not yet running, and the pod runner in it.

    Args:
        client: the API server of this process.
        node: where pods run.
        owners: types beside the built-in ones whose deletion may leave dependents.
    """
    manager = Manager(client, stop_grace=_STOP_SECONDS)
    runner = PodRunner(client, node, EventRecorder(client, "kubelet"))
    services = manager.cache.lister(Service)

    def services_of(pod: Pod) -> Iterable[Request]:
        return [Request(pod.namespace, service.name) for service in services.list(pod.namespace)]

    def everything(_obj: KubeObject) -> Iterable[Request]:
        return (garbage.PASS,)

    pods = Controller("pod", runner).watches(Pod)
    pods.watches(Secret, enqueue=runner.users_of).watches(ConfigMap, enqueue=runner.users_of)
    deployments = Controller("deployment", DeploymentReconciler(client)).watches(Deployment).owns(Pod)
    endpoints = Controller("endpoints", EndpointsReconciler(client)).watches(Service)
    endpoints.watches(Pod, enqueue=services_of)
    collector = Controller("garbage-collector", GarbageCollector(client))
    collected: tuple[type[KubeObject], ...] = (ConfigMap, Deployment, Endpoints, Pod, Secret, Service)
    for kind in (*collected, *owners):
        collector.watches(kind, enqueue=everything, predicate=deletion_requested)
    for controller in (pods, deployments, endpoints, collector):
        controller.register(manager)
    return manager, runner

"""The Service of each served namespace's mesh, and the watch on its registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from api.core import DEPLOYMENT, SERVICE, Deployment, Namespace, Service
from controller import marks
from controller.reconcilers import servicemonitor
from controller.runtime.apply import ensure, ensure_absent
from controller.runtime.errors import NotFound
from controller.runtime.reconcile import Request, Result

if TYPE_CHECKING:
    from collections.abc import Callable

    from api.meta import KubeObject
    from api.monitoring import ServiceMonitor
    from controller.config import Configuration
    from controller.runtime.client import Client
    from controller.runtime.informer import Lister
    from controller.scope import Scope

JSON = dict[str, Any]

_log = structlog.get_logger(__name__)

_HEADLESS = "None"


def build(configuration: Configuration, namespace: str, controller: str, owner: KubeObject | None) -> JSON:
    """Builds the Service; its targets are ports of container `mm` by name.

    Args:
        configuration: the configuration in effect.
        namespace: where the mesh is.
        controller: namespace of the controller.
        owner: what the Service goes with; None where there is nothing.
    """
    name = configuration.inference_service_name
    ports = {
        "grpc": configuration.inference_service_port,
        "http": configuration.rest_proxy.port if configuration.rest_proxy.enabled else None,
        "prometheus": configuration.metrics.port if configuration.metrics.enabled else None,
    }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": marks.labels(controller, name),
        }
        | ({"ownerReferences": [owner.owner_reference().dump()]} if owner is not None else {}),
        "spec": {
            "selector": {marks.SERVICE: name},
            "ports": [
                {"name": port, "port": number, "protocol": "TCP", "targetPort": port}
                for port, number in ports.items()
                if number is not None
            ],
        }
        | ({"clusterIP": _HEADLESS} if configuration.headless_service else {}),
    }


@dataclass(slots=True)
class ServiceReconciler:
    """Reconciles a namespace; the request's name does not matter.

    Attributes:
        client: the API server.
        scope: the served namespaces.
        configuration: returns the configuration in effect.
        services: the cache of Services that belong to a mesh.
        namespaces: the cache of namespaces; None in namespace scope.
        monitors: the cache of ServiceMonitors; None where the Prometheus operator is not installed.
        own_deployment: name of the controller's Deployment.
        follow: called with each served namespace: its registry is to be followed.
        leave: called with each namespace that is not served.
    """

    client: Client
    scope: Scope
    configuration: Callable[[], Configuration]
    services: Lister[Service]
    namespaces: Lister[Namespace] | None
    monitors: Lister[ServiceMonitor] | None
    own_deployment: str
    follow: Callable[[str], None]
    leave: Callable[[str], None]

    async def reconcile(self, request: Request) -> Result:
        """Makes the namespace have exactly the one Service of its mesh, or none where it is not served."""
        namespace = request.namespace
        present = self.services.list(namespace)
        if not self.scope.enabled(namespace):
            self.leave(namespace)
            for service in present:
                if marks.made_by(service, self.scope.own):
                    await self._delete(service)
            return Result()
        self.follow(namespace)
        configuration = self.configuration()
        wanted = build(configuration, namespace, self.scope.own, await self._owner(namespace))
        live = self.services.get(configuration.inference_service_name, namespace)
        if live is not None and (live.spec.cluster_ip == _HEADLESS) != configuration.headless_service:
            # A Service cannot change between the two; the deletion wakes us to make the other.
            await self._delete(live)
            return Result()
        done = await ensure(self.client, SERVICE, wanted, live=live)
        if done.action != "unchanged":
            _log.info(f"service {done.action}", namespace=namespace, service=wanted["metadata"]["name"])
        if self.monitors is not None:
            made = Service.parse(done.object)
            await servicemonitor.reconcile(self.client, self.monitors, configuration, made)
        for service in present:
            if service.name != configuration.inference_service_name:
                # The name was changed; what is left would select the pods of a mesh that is no more.
                await self._delete(service)
        return Result()

    async def _owner(self, namespace: str) -> KubeObject | None:
        if self.namespaces is not None:
            return self.namespaces.get(namespace)
        try:
            return Deployment.parse(await self.client.get(DEPLOYMENT, self.own_deployment, namespace))
        except NotFound:
            # The controller runs outside of the cluster.
            return None

    async def _delete(self, service: Service) -> None:
        if await ensure_absent(self.client, service):
            _log.info("service deleted", namespace=service.namespace, service=service.name)

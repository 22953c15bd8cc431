"""Endpoints of Services: which addresses are behind a name.

Pods share the address 127.0.0.1 and differ by port, so each ready pod is a subset of its own, with the ports
that the pod runner gave it under the Service's names. A client reads them as it reads a real cluster's.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from api.core import ENDPOINTS, POD, SERVICE, Pod, Service
from controller.runtime.errors import AlreadyExists, NotFound
from controller.runtime.reconcile import Request, Result
from local.containers import PORTS_ANNOTATION, port_number
from local.errors import PodSpecError
from local.node import NODE_NAME
from local.workloads import is_ready

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from api.core import ServicePort
    from api.meta import JSON
    from controller.runtime.client import Client


class EndpointsReconciler:
    """Writes the Endpoints object of a Service that has a selector."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def reconcile(self, request: Request) -> Result:
        """Make the Endpoints match the ready pods that the Service selects."""
        try:
            service = Service.parse(await self._client.get(SERVICE, request.name, request.namespace))
        except NotFound:
            return Result()
        if not service.spec.selector or service.metadata.deletion_timestamp:
            return Result()
        page = await self._client.list(POD, request.namespace)
        pods = [pod for pod in map(Pod.parse, page.items) if selects(service, pod)]
        await self._write(service, list(subsets_of(service, pods)))
        return Result()

    async def services_of(self, pod: Pod) -> list[Request]:
        """Return the Services that select a pod."""
        page = await self._client.list(SERVICE, pod.namespace)
        services = map(Service.parse, page.items)
        return [Request(pod.namespace, service.name) for service in services if selects(service, pod)]

    async def _write(self, service: Service, subsets: list[JSON]) -> None:
        try:
            present = await self._client.get(ENDPOINTS, service.name, service.namespace)
        except NotFound:
            endpoints = {
                "apiVersion": "v1",
                "kind": "Endpoints",
                "metadata": {
                    "name": service.name,
                    "namespace": service.namespace,
                    "labels": service.metadata.labels,
                    "ownerReferences": [service.owner_reference().dump()],
                },
                "subsets": subsets,
            }
            try:
                await self._client.create(ENDPOINTS, endpoints)
            except AlreadyExists:
                await self._write(service, subsets)
            return
        if present.get("subsets", []) != subsets:
            await self._client.patch(ENDPOINTS, service.name, service.namespace, {"subsets": subsets})


def selects(service: Service, pod: Pod) -> bool:
    """Return whether a Service's selector picks a pod."""
    selector = service.spec.selector
    return bool(selector) and selector.items() <= pod.metadata.labels.items()


def subsets_of(service: Service, pods: Iterable[Pod]) -> Iterator[JSON]:
    """Yield one Endpoints subset for each ready pod, in the order of their names."""
    for pod in sorted(pods, key=lambda pod: pod.name):
        if not is_ready(pod) or pod.metadata.deletion_timestamp or not pod.status.pod_ip:
            continue
        real = json.loads(pod.metadata.annotations.get(PORTS_ANNOTATION, "{}"))
        ports = list(_ports(service.spec.ports, pod, real))
        if ports:
            reference = {"kind": "Pod", "name": pod.name, "namespace": pod.namespace, "uid": pod.metadata.uid}
            address = {"ip": pod.status.pod_ip, "nodeName": NODE_NAME, "targetRef": reference}
            yield {"addresses": [address], "ports": ports}


def _ports(ports: Iterable[ServicePort], pod: Pod, real: dict[str, int]) -> Iterator[JSON]:
    for port in ports:
        target = port.target_port if port.target_port is not None else port.port
        try:
            number = port_number(pod.spec.containers, target)
        except PodSpecError:
            continue
        name = {"name": port.name} if port.name else {}
        yield {**name, "port": real.get(str(number), number), "protocol": port.protocol or "TCP"}

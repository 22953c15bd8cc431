"""Rules for a (Cluster)ServingRuntime that its schema cannot state: what the pods' other parts reserve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller import endpoint
from controller.errors import InvalidRuntimeError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from api.core import Container
    from api.v1alpha1 import ServingRuntimeSpec

_PREFIX = "mm-"
_CONTAINERS = frozenset({"mm", "rest-proxy", "puller"})
_PRIVATE_VOLUMES = frozenset({"storage-config", "etcd-config", "tc-config", "domain-socket"})
_OWN_VOLUMES = _PRIVATE_VOLUMES | {"models-dir"}
_PORT_NAMES = frozenset({"grpc", "http", "prometheus"})
_PORTS = frozenset({8080, 8085, 8089, 8090, *range(11881, 11900)})
"""Peers, adapter, probes, preStop; the range is reserved for the mesh's own use."""


def _reserved(name: str, names: Collection[str]) -> bool:
    return name in names or name.startswith(_PREFIX)


def _container_problems(container: Container) -> Iterator[str]:
    name = container.name
    if _reserved(name, _CONTAINERS):
        yield f"container name {name} is reserved"
    if container.readiness_probe is not None:
        yield f"container {name} has a readinessProbe; the mesh decides readiness"
    if container.lifecycle is not None:
        yield f"container {name} has a lifecycle; the mesh decides when it may stop"
    for mount in container.volume_mounts:
        if _reserved(mount.name, _PRIVATE_VOLUMES):
            yield f"container {name} mounts volume {mount.name}, which is reserved"
    for port in container.ports:
        if port.name is not None and _reserved(port.name, _PORT_NAMES):
            yield f"port name {port.name} of container {name} is reserved"
        if port.container_port in _PORTS:
            yield f"port {port.container_port} of container {name} is reserved"


def _adapter_problems(spec: ServingRuntimeSpec, server_types: Collection[str]) -> Iterator[str]:
    adapter = spec.built_in_adapter
    if adapter is None:
        return
    type_ = adapter.server_type
    if type_ not in server_types:
        yield f"builtInAdapter.serverType {type_!r} is none of {', '.join(sorted(server_types))}"
    elif type_ not in {container.name for container in spec.containers}:
        yield f"no container is named {type_}, as builtInAdapter.serverType asks for"


def _endpoint_problems(spec: ServingRuntimeSpec) -> Iterator[str]:
    if not spec.grpc_endpoint:
        yield "grpcEndpoint is missing: the mesh cannot reach the runtime (port:N or unix:PATH)"
        return
    for field, text in (("grpcEndpoint", spec.grpc_endpoint), ("grpcDataEndpoint", spec.grpc_data_endpoint)):
        if text and not endpoint.is_valid(text):
            yield f"{field} {text!r} is neither port:N nor unix:PATH"
    if spec.built_in_adapter is not None and not spec.grpc_endpoint.startswith("port:"):
        yield "grpcEndpoint must be port:N with a builtInAdapter, which listens there"


def problems(spec: ServingRuntimeSpec, server_types: Collection[str]) -> Iterator[str]:
    """Yields what is wrong with a runtime, in the order in which its author should look.

    Args:
        spec: the runtime's spec.
        server_types: values that `builtInAdapter.serverType` may have.
    """
    yield from _adapter_problems(spec, server_types)
    for container in spec.containers:
        yield from _container_problems(container)
    for volume in spec.volumes:
        if _reserved(volume.name, _OWN_VOLUMES):
            yield f"volume name {volume.name} is reserved"
    if spec.multi_model:
        yield from _endpoint_problems(spec)


def check(spec: ServingRuntimeSpec, server_types: Collection[str]) -> None:
    """Raises InvalidRuntimeError that names everything wrong with a runtime."""
    if found := list(problems(spec, server_types)):
        raise InvalidRuntimeError("; ".join(found))

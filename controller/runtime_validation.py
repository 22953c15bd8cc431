"""What a (Cluster)ServingRuntime must satisfy beyond its schema: what the pods' other parts reserve.

The API server checks the same rules, in CEL and with the same texts (`api.v1alpha1.rules`); here they are
checked again for clusters where an object is older than the rules, and for what only the configuration tells.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from api.v1alpha1 import rules
from controller.errors import InvalidRuntimeError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from api.core.pod import ContainerPort
    from api.rules import Rule
    from api.v1alpha1 import ServingRuntimeSpec


class Problem(NamedTuple):
    """What is wrong, and where; `field` is empty where the message says it."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def _free(name: str, taken: Collection[str]) -> bool:
    return name not in taken and not name.startswith(rules.PREFIX)


def _container_names(spec: ServingRuntimeSpec) -> bool:
    return all(_free(container.name, rules.CONTAINERS) for container in spec.containers)


def _readiness(spec: ServingRuntimeSpec) -> bool:
    return all(container.readiness_probe is None for container in spec.containers)


def _lifecycle(spec: ServingRuntimeSpec) -> bool:
    return all(container.lifecycle is None for container in spec.containers)


def _mounts(spec: ServingRuntimeSpec) -> bool:
    mounts = (mount for container in spec.containers for mount in container.volume_mounts)
    return all(_free(mount.name, rules.PRIVATE_VOLUMES) for mount in mounts)


def _ports(spec: ServingRuntimeSpec) -> Iterator[ContainerPort]:
    return (port for container in spec.containers for port in container.ports)


def _port_names(spec: ServingRuntimeSpec) -> bool:
    return all(port.name is None or _free(port.name, rules.PORT_NAMES) for port in _ports(spec))


def _port_numbers(spec: ServingRuntimeSpec) -> bool:
    return not any(
        port.container_port in rules.PORTS or rules.FIRST_PORT <= port.container_port <= rules.LAST_PORT
        for port in _ports(spec)
    )


def _volumes(spec: ServingRuntimeSpec) -> bool:
    return all(_free(volume.name, rules.OWN_VOLUMES) for volume in spec.volumes)


def _adapted_container(spec: ServingRuntimeSpec) -> bool:
    adapter = spec.built_in_adapter
    return adapter is None or any(container.name == adapter.server_type for container in spec.containers)


def _adapter_container(spec: ServingRuntimeSpec) -> bool:
    adapter = spec.built_in_adapter
    name = f"{adapter.server_type}-adapter" if adapter is not None else ""
    return not any(container.name == name for container in spec.containers)


def _endpoint_given(spec: ServingRuntimeSpec) -> bool:
    return bool(spec.grpc_endpoint)


def _is_endpoint(text: str | None, spec: ServingRuntimeSpec) -> bool:
    if not text or re.fullmatch(rules.ENDPOINT, text):
        return True
    helper = spec.storage_helper
    no_puller = spec.built_in_adapter is not None or (helper is not None and helper.disabled)
    return no_puller and re.fullmatch(rules.SOCKET_PATH, text) is not None


def _management_endpoint(spec: ServingRuntimeSpec) -> bool:
    return _is_endpoint(spec.grpc_endpoint, spec)


def _data_endpoint(spec: ServingRuntimeSpec) -> bool:
    return _is_endpoint(spec.grpc_data_endpoint, spec)


def _adapter_port(spec: ServingRuntimeSpec) -> bool:
    return spec.built_in_adapter is None or not spec.grpc_endpoint or spec.grpc_endpoint.startswith("port:")


_HOLDS: Mapping[Rule, Callable[[ServingRuntimeSpec], bool]] = {
    rules.ADAPTED_CONTAINER: _adapted_container,
    rules.ADAPTER_CONTAINER: _adapter_container,
    rules.CONTAINER_NAMES: _container_names,
    rules.READINESS: _readiness,
    rules.LIFECYCLE: _lifecycle,
    rules.MOUNTS: _mounts,
    rules.PORT_NAME: _port_names,
    rules.PORT_NUMBER: _port_numbers,
    rules.VOLUMES: _volumes,
    rules.ENDPOINT_GIVEN: _endpoint_given,
    rules.MANAGEMENT_ENDPOINT: _management_endpoint,
    rules.DATA_ENDPOINT: _data_endpoint,
    rules.ADAPTER_PORT: _adapter_port,
}


def spec_problems(spec: ServingRuntimeSpec) -> list[Problem]:
    """Returns what the CRD's rules have against a runtime, in the order in which its author should look.

    Nothing where it is not ModelMesh's, or disabled: there are no pods whose parts could be in the way.
    """
    if not spec.multi_model or spec.disabled:
        return []
    return [Problem(rule.field, rule.message) for rule in rules.RUNTIME if not _HOLDS[rule](spec)]


def problems(spec: ServingRuntimeSpec, server_types: Collection[str]) -> list[Problem]:
    """Returns what is wrong with a runtime, with what only the configuration tells.

    Args:
        spec: the runtime's spec.
        server_types: values that `builtInAdapter.serverType` may have.
    """
    found = spec_problems(spec)
    adapter = spec.built_in_adapter
    if spec.multi_model and not spec.disabled and adapter is not None:
        type_ = adapter.server_type
        if type_ not in server_types:
            known = ", ".join(sorted(server_types))
            message = f"serverType {type_!r} is none of {known}: correct it, or add it to builtInServerTypes"
            found.insert(0, Problem("spec.builtInAdapter", message))
    return found


def check(spec: ServingRuntimeSpec, server_types: Collection[str]) -> None:
    """Raises InvalidRuntimeError that names everything wrong with a runtime."""
    if found := problems(spec, server_types):
        raise InvalidRuntimeError(sentence(found))


def autoscaling_problems(annotations: Mapping[str, str], spec: ServingRuntimeSpec) -> list[Problem]:
    """Returns what is wrong with a runtime's annotations that ask for autoscaling."""
    return [Problem("", rule.message) for rule in _broken(annotations, spec)] if spec.multi_model else []


def _broken(annotations: Mapping[str, str], spec: ServingRuntimeSpec) -> Iterator[Rule]:
    class_, target = annotations.get(rules.CLASS), annotations.get(rules.TARGET)
    if class_ not in {None, *rules.CLASSES}:
        yield rules.SCALING_CLASS
    hpa = class_ == "hpa"
    if hpa and annotations.get(rules.METRIC, "cpu") not in rules.METRICS:
        yield rules.SCALING_METRIC
    if target is not None and not re.fullmatch(rules.PERCENTAGE, target):
        yield rules.SCALING_TARGET
    if not hpa:
        return
    if spec.replicas is not None:
        yield rules.SCALING_REPLICAS
    least, most = annotations.get(rules.MIN_SCALE, "1"), annotations.get(rules.MAX_SCALE, "1")
    sound_least = re.fullmatch(rules.POSITIVE, least) is not None
    sound_most = re.fullmatch(rules.INTEGER, most) is not None
    if not sound_least:
        yield rules.SCALING_MIN
    if not sound_most:
        yield rules.SCALING_MAX
    if sound_least and sound_most and int(least) > int(most):
        yield rules.SCALING_ORDER


def sentence(found: Iterable[Problem]) -> str:
    """Returns problems in one line."""
    return "; ".join(map(str, found))

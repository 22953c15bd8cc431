"""From a container of a pod to a command of this machine: a pure translation, tested without processes.

Three things differ from a real node. A container's paths are rewritten to the folders of its mounts, its
ports to free ones of the loopback interface (one map for the whole pod, since its containers share a
network), and its entry point comes from the image's local profile.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from controller.quantity import parse
from local.errors import PodSpecError
from local.processes import Command

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from api.core import Container, EnvVar, Pod
    from local.profiles import Profile

PORTS_ANNOTATION = "local.modelmesh/ports"
"""Annotation of a pod: JSON object from the ports it was written with to those it has on 127.0.0.1."""

_NUMBER = re.compile(r"(?<![\w.])\d{2,5}(?![\w.])")
_REFERENCE = re.compile(r"\$\$|\$\((\w[\w.-]*)\)")
_FACT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a translation needs to know.

    Attributes:
        pod: the pod, with its name and addresses.
        ports: the pod's port map, from written to real.
        volumes: folder of each volume.
        names: values of `{name}` in profiles, such as the path of a tool.
        base: variables that every process gets, such as PATH.
        config: contents of ConfigMaps and Secrets, by kind, name and key, for variables.
    """

    pod: Pod
    ports: Mapping[int, int]
    volumes: Mapping[str, Path]
    names: Mapping[str, str]
    base: Mapping[str, str]
    config: Mapping[tuple[str, str], Mapping[str, bytes]] = field(default_factory=dict)


def translate(
    container: Container, profile: Profile, program: tuple[str, ...], facts: Facts, folder: Path
) -> Command:
    """Return the command that runs `container` in the working directory `folder`.

    Raises:
        PodSpecError: a variable's source is missing or of a kind that local mode does not have.
    """
    variables = {name: _fill(value, facts.names) for name, value in profile.defaults.items()}
    for variable in container.env:
        value = _value(container, variable, facts)
        if value is not None:
            variables[variable.name] = _expand(value, variables)
    variables |= {name: _fill(value, facts.names) for name, value in profile.overrides.items()}
    arguments = [
        _expand(argument, variables) for argument in _words(container, profile, program, facts.names)
    ]
    mounts = _mounts(container, facts.volumes)
    return Command(
        arguments=[
            _paths(_ports_of_flag(argument, profile.ports, facts.ports), mounts) for argument in arguments
        ],
        environment={
            **facts.base,
            **{
                name: _paths(_ports(value, facts.ports) if name in profile.ports else value, mounts)
                for name, value in variables.items()
            },
        },
        folder=folder,
    )


def written_ports(container: Container, profile: Profile) -> Iterator[tuple[int, int | None]]:
    """Yield the ports a container is written with, each with the `hostPort` it asks for, if any."""
    for port in container.ports:
        yield port.container_port, port.host_port
    variables = profile.defaults | {item.name: item.value or "" for item in container.env} | profile.overrides
    for name, value in variables.items():
        if name in profile.ports:
            yield from ((int(number), None) for number in _NUMBER.findall(value))
    for argument in container.args or profile.arguments:
        flag, _, value = argument.partition("=")
        if flag in profile.ports:
            yield from ((int(number), None) for number in _NUMBER.findall(value))
    handlers = (container.readiness_probe, container.liveness_probe)
    actions = [probe.http_get for probe in handlers if probe is not None]
    if container.lifecycle and container.lifecycle.pre_stop:
        actions.append(container.lifecycle.pre_stop.http_get)
    for action in actions:
        if action is not None and isinstance(action.port, int):
            yield action.port, None


def port_number(containers: Iterable[Container], port: int | str) -> int:
    """Return a port as a number, where a name stands for a port that some container declares.

    Raises:
        PodSpecError: no container declares a port of that name.
    """
    if isinstance(port, int) or port.isdigit():
        return int(port)
    for container in containers:
        for declared in container.ports:
            if declared.name == port:
                return declared.container_port
    raise PodSpecError(f"no container declares a port named {port!r}")


def _words(
    container: Container, profile: Profile, program: tuple[str, ...], names: Mapping[str, str]
) -> list[str]:
    words = [_fill(word, names) for word in program]
    arguments = container.args or (
        [] if container.command else [_fill(word, names) for word in profile.arguments]
    )
    return [*words, *container.command[1:], *arguments]


def _value(container: Container, variable: EnvVar, facts: Facts) -> str | None:
    source = variable.value_from
    if source is None:
        return variable.value or ""
    where = f"variable {variable.name} of container {container.name}"
    if source.field_ref is not None:
        return _pod_field(source.field_ref.field_path, facts.pod, where)
    if source.resource_field_ref is not None:
        reference = source.resource_field_ref
        name = reference.container_name or container.name
        owner = next((item for item in facts.pod.spec.containers if item.name == name), None)
        kind, _, resource = reference.resource.partition(".")
        if owner is None or kind not in {"requests", "limits"}:
            raise PodSpecError(f"{where}: container {name!r} has no {reference.resource!r}")
        try:
            amount = parse(str(getattr(owner.resources, kind).get(resource, 0)))
            return str(math.ceil(amount / (parse(str(reference.divisor or 1)) or 1)))
        except ValueError as error:
            raise PodSpecError(f"{where}: {error}") from error
    for kind, selector in (("Secret", source.secret_key_ref), ("ConfigMap", source.config_map_key_ref)):
        if selector is None:
            continue
        content = facts.config.get((kind, selector.name), {}).get(selector.key)
        if content is None and not selector.optional:
            raise PodSpecError(f"{where}: {kind} {selector.name!r} with an entry {selector.key!r} is missing")
        return None if content is None else content.decode(errors="surrogateescape")
    raise PodSpecError(f"{where}: this kind of valueFrom does not exist in local mode")


def _pod_field(path: str, pod: Pod, where: str) -> str:
    labelled = re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path)
    if labelled:
        return str(getattr(pod.metadata, labelled[1]).get(labelled[2], ""))
    fields = {
        "metadata.name": pod.name,
        "metadata.namespace": pod.namespace,
        "metadata.uid": pod.metadata.uid,
        "spec.nodeName": pod.spec.node_name,
        "spec.serviceAccountName": pod.spec.service_account_name or "",
        "status.podIP": pod.status.pod_ip,
        "status.hostIP": pod.status.host_ip,
    }
    value = fields.get(path)
    if value is None:
        raise PodSpecError(f"{where}: field {path!r} of a pod does not exist in local mode")
    return value


def _fill(text: str, names: Mapping[str, str]) -> str:
    return _FACT.sub(lambda match: names.get(match[1], match[0]), text)


def _expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by a variable; `$$` is a dollar sign, and an unknown name stays as it is."""
    return _REFERENCE.sub(lambda m: "$" if m[0] == "$$" else variables.get(m[1], m[0]), text)


def _ports(text: str, ports: Mapping[int, int]) -> str:
    return _NUMBER.sub(lambda match: str(ports.get(int(match[0]), match[0])), text)


def _ports_of_flag(argument: str, flags: frozenset[str], ports: Mapping[int, int]) -> str:
    flag, equals, value = argument.partition("=")
    return f"{flag}={_ports(value, ports)}" if equals and flag in flags else argument


def _mounts(container: Container, volumes: Mapping[str, Path]) -> list[tuple[re.Pattern[str], str]]:
    """Return the paths of the container's mounts and their folders, the longest path first."""
    mounts = sorted(container.volume_mounts, key=lambda mount: -len(mount.mount_path))
    found = []
    for mount in mounts:
        if mount.name not in volumes:
            raise PodSpecError(
                f"container {container.name} mounts volume {mount.name!r}, which the pod does not have"
            )
        target = volumes[mount.name] / mount.sub_path if mount.sub_path else volumes[mount.name]
        path = re.escape(mount.mount_path.rstrip("/"))
        # Not in the middle of a longer path; but after the slashes of unix:///PATH.
        found.append((re.compile(rf"(?:(?<![\w./-])|(?<=://)){path}(?=$|[/:,;\s\"'])"), str(target)))
    return found


def _paths(text: str, mounts: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, target in mounts:
        if pattern.search(text):
            return pattern.sub(lambda _, target=target: target, text)  # type: ignore[misc]
    return text

"""What the pods of this machine share."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import aiohttp

    from local.home import Home
    from local.ports import PortAllocator
    from local.profiles import Profiles

NODE_NAME = "localhost"
"""The node that pods show; one with a node is deleted only when its runner says that it has ended."""


@dataclass(frozen=True)
class Node:
    """What the pods of this machine share.

    Attributes:
        home: paths of the cluster.
        profiles: how images run here.
        ports: gives out free ports.
        names: values of `{name}` in profiles.
        base: variables that every process gets.
        session: HTTP client of probes.
    """

    home: Home
    profiles: Profiles
    ports: PortAllocator
    names: Mapping[str, str]
    base: Mapping[str, str]
    session: aiohttp.ClientSession


def logs_of(home: Home, namespace: str, pod: str, container: str) -> Path:
    """Return the folder of a container's log files, `N.log` for its Nth start from 0."""
    return home.logs / namespace / pod / container


def base_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that every process gets from this one: what a login shell has, and proxies.

    A proxy is never used for this machine's own addresses.
    """
    kept = {
        name: value
        for name, value in variables.items()
        if name in {"HOME", "LANG", "PATH", "TMPDIR", "USER", "SSL_CERT_FILE", "SSL_CERT_DIR"}
        or name.lower() in {"http_proxy", "https_proxy", "all_proxy"}
        or name.startswith("LC_")
    }
    return kept | without_proxy(variables) | {"PYTHONUNBUFFERED": "1"}


def without_proxy(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which a program reaches this machine directly, whatever proxy is set."""
    present = variables.get("NO_PROXY") or variables.get("no_proxy")
    bypass = ",".join(filter(None, (present, LOOPBACK, "localhost")))
    return {"NO_PROXY": bypass, "no_proxy": bypass}


def node_names(home: Home, *, grpc_port: int, rest_port: int, tools: Mapping[str, Path]) -> dict[str, str]:
    """Return the facts that profiles may name in braces."""
    return {
        "interpreter": sys.executable,
        "kubeconfig": str(home.kubeconfig),
        "grpc_port": str(grpc_port),
        "rest_port": str(rest_port),
        **{name: str(path) for name, path in tools.items()},
    }

"""Volumes of a runtime's pod."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from controller import constraints, quantity
from controller.claims import volume_name
from controller.deployment.context import (
    CONSTRAINTS,
    ETCD_CONFIG,
    MODELS,
    SOCKET,
    STORAGE_CONFIG,
    TLS_CERTS,
    PodContext,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from api.core import Container

JSON = dict[str, Any]

_MODELS_PER_MEMORY = Decimal("1.5")
"""Bytes of disk for model files per byte of the servers' memory, as the original gave."""


def _models_limit(containers: Iterable[Container]) -> str:
    limits = (c.resources.limits.get("memory", "0") for c in containers)
    total = sum((quantity.parse(str(limit)) for limit in limits), Decimal(0))
    return quantity.format_bytes(int(total * _MODELS_PER_MEMORY))


def _secret(name: str, secret: str) -> JSON:
    return {"name": name, "secret": {"secretName": secret}}


def build(context: PodContext) -> list[JSON]:
    """Returns the pod's volumes, the runtime's own first."""
    volumes = [
        *(volume.dump() for volume in context.spec.volumes),
        {"name": MODELS, "emptyDir": {"sizeLimit": _models_limit(context.spec.containers)}},
    ]
    if context.socket_directory:
        volumes.append({"name": SOCKET, "emptyDir": {}})
    if context.adapter is not None or context.has_puller:
        volumes.append(_secret(STORAGE_CONFIG, context.storage_secret))
    volumes += (
        {"name": volume_name(claim), "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for claim in context.claims
    )
    volumes += [
        {"name": CONSTRAINTS, "configMap": {"name": constraints.NAME}},
        _secret(ETCD_CONFIG, context.etcd_secret),
    ]
    if context.tls is not None:
        volumes.append(_secret(TLS_CERTS, context.tls.secret_name))
    return volumes

"""Puts a runtime's Deployment together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controller import marks
from controller.deployment import mesh, scheduling, server, storage, volumes
from controller.deployment.context import PodContext, Tls

if TYPE_CHECKING:
    from controller.config import Configuration

__all__ = ["PodContext", "Tls", "build", "name_of"]

JSON = dict[str, Any]


def name_of(configuration: Configuration, runtime: str) -> str:
    """Returns the name of a runtime's Deployment."""
    return f"{configuration.inference_service_name}-{runtime}"


def _containers(context: PodContext) -> list[JSON]:
    # The mesh is last: its wait for the server at start-up should not be used up by pulls of other images.
    containers = [server.container(context, given) for given in context.spec.containers]
    if context.adapter is not None:
        containers.append(storage.adapter(context, context.adapter))
    if context.has_puller:
        containers.append(storage.puller(context))
    return [*containers, mesh.container(context)]


def _annotations(context: PodContext) -> dict[str, str]:
    metrics = context.configuration.metrics
    scraping = {
        "prometheus.io/path": "/metrics",
        "prometheus.io/port": str(metrics.port),
        "prometheus.io/scheme": metrics.scheme,
        "prometheus.io/scrape": "true",
    }
    own = scraping if metrics.enabled else {}
    return own | context.configuration.runtime_pod_annotations | context.spec.annotations


def _pull_secrets(context: PodContext) -> list[JSON]:
    configured = (secret.name for secret in context.configuration.image_pull_secrets)
    given = (secret.name for secret in context.spec.image_pull_secrets)
    return [{"name": name} for name in dict.fromkeys((*configured, *given))]


def _pod(context: PodContext, selector: dict[str, str]) -> JSON:
    spec = context.spec
    account = context.configuration.service_account_name
    # Models can be code: they do not get the token of a default account that nobody has meant for them.
    rights: JSON = {"serviceAccountName": account} if account else {"automountServiceAccountToken": False}
    optional = {
        "imagePullSecrets": _pull_secrets(context),
        "nodeSelector": spec.node_selector,
        "tolerations": [toleration.dump() for toleration in spec.tolerations],
    }
    return {
        **rights,
        "affinity": scheduling.affinity(spec.affinity),
        "containers": _containers(context),
        "terminationGracePeriodSeconds": mesh.GRACE_PERIOD_S,
        "topologySpreadConstraints": scheduling.spread(selector),
        "volumes": volumes.build(context),
    } | {field: value for field, value in optional.items() if value}


def _user_labels(context: PodContext) -> dict[str, str]:
    return context.configuration.runtime_pod_labels | context.spec.labels


def build(context: PodContext) -> JSON:
    """Builds the Deployment; InvalidRuntimeError where the endpoints cannot share one socket volume."""
    configuration = context.configuration
    name = name_of(configuration, context.runtime.name)
    service = configuration.inference_service_name
    selector = {marks.SERVICE: service, "name": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": context.namespace,
            "labels": marks.labels(context.controller, service) | {"name": name},
            "ownerReferences": [context.runtime.owner_reference().dump()],
        },
        "spec": {
            "replicas": context.replicas,
            "selector": {"matchLabels": selector},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": "75%", "maxUnavailable": "15%"},
            },
            "template": {
                "metadata": {
                    "labels": marks.COMMON | selector | _user_labels(context),
                    "annotations": _annotations(context),
                },
                "spec": _pod(context, selector),
            },
        },
    }

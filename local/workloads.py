"""Deployments: pods are made, replaced and removed until they are as the Deployment says.

A slice of kube-controller-manager without ReplicaSets: a pod belongs to the Deployment itself and carries the
hash of the template it was made from. What to do is a pure function, `plan_rollout`.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from api.core import DEPLOYMENT, POD, Deployment, Pod
from controller.runtime.errors import AlreadyExists, NotFound
from controller.runtime.reconcile import Request, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from api.meta import JSON, IntOrString
    from controller.runtime.client import Client

TEMPLATE_HASH = "pod-template-hash"

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""The characters of Kubernetes' generated names: no vowels, so no words."""


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What a rollout needs to know of one pod.

    Attributes:
        name: its name.
        current: whether it was made from the present template.
        ready: whether it is Ready.
        created: creation time, RFC 3339.
    """

    name: str
    current: bool
    ready: bool
    created: str


@dataclass(frozen=True, slots=True)
class Rollout:
    """The next step of a Deployment: how many pods to create, and which to delete."""

    create: int
    delete: tuple[str, ...]


def plan_rollout(pods: Sequence[PodFacts], *, replicas: int, surge: int, unavailable: int) -> Rollout:
    """Return the next step towards `replicas` pods of the present template.

    At no time are there more than `replicas` + `surge` pods, nor, where enough are ready to begin with, fewer
    than `replicas` - `unavailable` ready ones. Pods that are being deleted do not count and must not be
    passed.
    """
    current = [pod for pod in pods if pod.current]
    old = [pod for pod in pods if not pod.current]
    create = max(0, min(replicas - len(current), replicas + surge - len(pods)))
    surplus = _by_value(current)[: max(0, len(current) - replicas)]
    spare = sum(pod.ready for pod in pods) - sum(pod.ready for pod in surplus) - (replicas - unavailable)
    delete = list(surplus)
    for pod in _by_value(old):
        if not pod.ready:
            delete.append(pod)
        elif spare > 0:
            spare -= 1
            delete.append(pod)
    return Rollout(create, tuple(pod.name for pod in delete))


def resolve_bounds(
    replicas: int, surge: IntOrString | None, unavailable: IntOrString | None
) -> tuple[int, int]:
    """Return maxSurge and maxUnavailable as numbers; as in Kubernetes, surge rounds up, the other down."""
    more = _share(surge if surge is not None else "25%", replicas, math.ceil)
    fewer = _share(unavailable if unavailable is not None else "25%", replicas, math.floor)
    return more, fewer if more or fewer else 1


def template_hash(template: JSON) -> str:
    """Return ten characters that stand for a pod template."""
    digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).digest()
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:10])


class DeploymentReconciler:
    """Makes the pods of a Deployment match it, and writes its status."""

    def __init__(self, client: Client, random_source: random.Random | None = None) -> None:
        self._client = client
        self._random = random_source or random.Random()  # noqa: S311 -- names, not secrets

    async def reconcile(self, request: Request) -> Result:
        """Take one step of the rollout; each change of a pod brings the next."""
        try:
            raw = await self._client.get(DEPLOYMENT, request.name, request.namespace)
        except NotFound:
            return Result()
        deployment = Deployment.parse(raw)
        if deployment.metadata.deletion_timestamp:
            return Result()
        digest = template_hash(raw["spec"]["template"])
        pods = await self._pods_of(deployment)
        living = [pod for pod in pods if not pod.metadata.deletion_timestamp]
        facts = [
            PodFacts(
                pod.name,
                pod.metadata.labels.get(TEMPLATE_HASH) == digest,
                is_ready(pod),
                pod.metadata.creation_timestamp or "",
            )
            for pod in living
        ]
        replicas = 1 if deployment.spec.replicas is None else deployment.spec.replicas
        rolling = deployment.spec.strategy.rolling_update if deployment.spec.strategy else None
        surge, unavailable = resolve_bounds(
            replicas,
            rolling.max_surge if rolling else None,
            rolling.max_unavailable if rolling else None,
        )
        plan = plan_rollout(facts, replicas=replicas, surge=surge, unavailable=unavailable)
        for _ in range(plan.create):
            await self._create(deployment, raw["spec"]["template"], digest)
        for name in plan.delete:
            await self._client.delete(POD, name, request.namespace)
        await self._write_status(deployment, raw, facts, replicas, unavailable)
        return Result()

    async def _pods_of(self, deployment: Deployment) -> list[Pod]:
        page = await self._client.list(POD, deployment.namespace)
        return [
            Pod.parse(raw)
            for raw in page.items
            if any(
                owner["uid"] == deployment.metadata.uid
                for owner in raw["metadata"].get("ownerReferences", ())
            )
        ]

    async def _create(self, deployment: Deployment, template: JSON, digest: str) -> None:
        metadata = template.get("metadata", {})
        while True:
            suffix = "".join(self._random.choices(_ALPHABET, k=5))
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"{deployment.name}-{digest}-{suffix}",
                    "namespace": deployment.namespace,
                    "labels": {**metadata.get("labels", {}), TEMPLATE_HASH: digest},
                    "annotations": metadata.get("annotations", {}),
                    "ownerReferences": [deployment.owner_reference().dump()],
                },
                "spec": template["spec"],
            }
            try:
                await self._client.create(POD, pod)
            except AlreadyExists:
                continue
            return

    async def _write_status(
        self,
        deployment: Deployment,
        raw: JSON,
        pods: Sequence[PodFacts],
        replicas: int,
        unavailable: int,
    ) -> None:
        ready = sum(pod.ready for pod in pods)
        updated = sum(pod.current for pod in pods)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        done = updated == len(pods) == ready == replicas
        conditions = [
            (
                "Available",
                ready >= replicas - unavailable,
                "MinimumReplicasAvailable",
                "MinimumReplicasUnavailable",
            ),
            ("Progressing", True, "NewReplicaSetAvailable" if done else "ReplicaSetUpdated", ""),
        ]
        times = {(item.type, item.status): item.last_transition_time for item in deployment.status.conditions}
        status = {
            "observedGeneration": deployment.metadata.generation,
            "replicas": len(pods),
            "updatedReplicas": updated,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(0, replicas - ready),
            "conditions": [
                {
                    "type": kind,
                    "status": str(holds),
                    "reason": yes if holds else no,
                    "lastTransitionTime": times.get((kind, str(holds))) or now,
                }
                for kind, holds, yes, no in conditions
            ],
        }
        if raw.get("status") != status:
            await self._client.patch(
                DEPLOYMENT,
                deployment.name,
                deployment.namespace,
                {"status": status},
                subresource="status",
            )


def is_ready(pod: Pod) -> bool:
    """Return whether a pod's Ready condition is True."""
    return any(
        condition.type == "Ready" and condition.status == "True" for condition in pod.status.conditions
    )


def _by_value(pods: Sequence[PodFacts]) -> list[PodFacts]:
    """Return pods in the order in which they may go: those not ready first, then the youngest."""
    return sorted(sorted(pods, key=lambda pod: pod.created, reverse=True), key=lambda pod: pod.ready)


def _share(value: IntOrString, whole: int, rounding: Callable[[float], int]) -> int:
    return value if isinstance(value, int) else rounding(float(value.removesuffix("%")) * whole / 100)

"""A whole operator: each Greeting gets a ConfigMap with its text, kept as it should be.

Run it against the cluster of your kubeconfig: `python docs/examples/greeting_operator.py NAMESPACE`, after
`kubectl apply -f docs/examples/greeting.yaml`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from api.core import CONFIG_MAP, ConfigMap
from api.meta import KubeObject, Model
from api.resource import Resource
from controller.runtime import (
    Controller,
    EventRecorder,
    LeaseLock,
    Manager,
    Request,
    Result,
    ensure,
    load_client,
)
from controller.runtime.predicate import generation_changed

if TYPE_CHECKING:
    from controller.runtime import Client

GREETING = Resource("example.com", "v1", "Greeting", "greetings")


class GreetingSpec(Model):
    """Whom to greet."""

    to: str


class GreetingStatus(Model):
    """How far it is."""

    phase: str = ""
    observed_generation: int = 0


class Greeting(KubeObject):
    """A wish to greet somebody."""

    RESOURCE: ClassVar[Resource] = GREETING

    spec: GreetingSpec
    status: GreetingStatus = Field(default_factory=GreetingStatus)


class GreetingReconciler:
    """Makes the ConfigMap of one Greeting what it should be."""

    def __init__(self, manager: Manager) -> None:
        self._client = manager.client
        self._greetings = manager.cache.lister(Greeting)
        self._recorder = EventRecorder(manager.client, "greeting-operator")

    async def reconcile(self, request: Request) -> Result:
        """Read the wish from the cache, make the world match, say so in the status."""
        greeting = self._greetings.get(request.name, request.namespace)
        if greeting is None or greeting.metadata.deletion_timestamp:
            return Result()  # what it owns goes with it
        made = await ensure(
            self._client,
            CONFIG_MAP,
            {
                "metadata": {
                    "name": f"greeting-{greeting.name}",
                    "namespace": greeting.namespace,
                    "ownerReferences": [greeting.owner_reference().dump()],
                },
                "data": {"text": f"Hello {greeting.spec.to}!"},
            },
        )
        if made.action != "unchanged":
            await self._recorder.event(greeting, "Normal", "Greeted", f"ConfigMap {made.action}")
        status = {"phase": "Ready", "observedGeneration": greeting.metadata.generation}
        if greeting.status.dump() != status:
            patch = {"status": status}
            await self._client.patch(GREETING, greeting.name, greeting.namespace, patch, subresource="status")
        return Result()


def build(client: Client, namespace: str, lock: LeaseLock | None = None) -> Manager:
    """Return the manager of the operator."""
    manager = Manager(client, namespaces=[namespace], leader_election=lock)
    (
        Controller("greeting", GreetingReconciler(manager))
        .watches(Greeting, predicate=generation_changed)
        .owns(ConfigMap)
        .register(manager)
    )
    return manager


async def main(namespace: str) -> None:
    """Run until SIGTERM or SIGINT."""
    async with await load_client(user_agent="greeting-operator") as client:
        manager = build(client, namespace, LeaseLock("greeting-operator", namespace))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, manager.stop)
        await manager.run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

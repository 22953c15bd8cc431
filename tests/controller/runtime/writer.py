"""An operator that does nothing but write, as fast as it can: ConfigMaps that carry its name.

It is slow to notice that it leads no longer, as a process with a busy event loop would be, and tries every
refused write again: nothing but the fence stops it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from api.core import CONFIG_MAP, ConfigMap
from controller.runtime import (
    Controller,
    LeadershipLostError,
    LeaseLock,
    Manager,
    Request,
    Result,
    load_client,
)
from controller.runtime.errors import ClientError
from controller.runtime.leader import Leadership

LOCK = {"lease_duration": 3.0, "renew_deadline": 2.0, "retry_period": 0.3}
SECONDS_TO_NOTICE = 1.5


class Writer:
    def __init__(self, manager: Manager, namespace: str, identity: str) -> None:
        self._manager, self._namespace, self._identity = manager, namespace, identity
        self._count = 0

    async def reconcile(self, _request: Request) -> Result:
        """Go on for ever."""
        while True:
            self._count += 1
            name = f"{self._identity}-{self._count:06}"
            metadata = {"name": name, "namespace": self._namespace, "labels": {"writer": self._identity}}
            try:
                await self._manager.client.create(CONFIG_MAP, {"metadata": metadata})
            except ClientError:
                await asyncio.sleep(0.001)


class Slow(Leadership):
    async def hold(self) -> None:
        try:
            await super().hold()
        except LeadershipLostError:
            await asyncio.sleep(SECONDS_TO_NOTICE)
            raise


async def main(kubeconfig: str, namespace: str, identity: str) -> None:
    async with await load_client(Path(kubeconfig)) as client:
        lock = LeaseLock("writer", namespace, identity, **LOCK)
        manager = Manager(client, namespaces=[namespace], leader_election=lock)
        assert manager._leadership is not None
        manager._leadership.__class__ = Slow
        writer = Writer(manager, namespace, identity)
        Controller("writer", writer, workers=4).watches(ConfigMap).register(manager)
        await manager.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""Follows the registry of every served namespace's mesh."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from controller.triggers import RegistryTriggers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from controller.model_id import Source
    from controller.runtime.reconcile import Request
    from controller.triggers import Registry
    from store.base import Store
    from store.connection import EtcdConnection
    from store.records import InstanceRecord


class Registries:
    """Starts and stops the followers; `run` owns their tasks.

    Args:
        locate: returns where a namespace's registry is; None while that is not known.
        connect: opens a store.
        wake: called for each object whose model or vmodel changed.
        pods_changed: called with a namespace when models or memory of its pods changed.
    """

    def __init__(
        self,
        *,
        locate: Callable[[str], Registry | None],
        connect: Callable[[EtcdConnection], Awaitable[Store]],
        wake: Callable[[Source, Request], None],
        pods_changed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._pods_changed = pods_changed
        self._locate = locate
        self._connect = connect
        self._wake = wake
        self._followers: dict[str, RegistryTriggers] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None

    def follow(self, namespace: str) -> None:
        """Follows a namespace's registry; nothing where it is followed already."""
        if namespace in self._followers:
            return
        follower = RegistryTriggers(
            namespace,
            locate=lambda: self._locate(namespace),
            connect=self._connect,
            wake=self._wake,
            pods_changed=self._pods_changed,
        )
        self._followers[namespace] = follower
        if self._group is not None:
            self._tasks[namespace] = self._group.create_task(follower.run())

    def leave(self, namespace: str) -> None:
        """Follows it no longer."""
        self._followers.pop(namespace, None)
        if task := self._tasks.pop(namespace, None):
            task.cancel()

    def relocate(self) -> None:
        """Looks again where the registries are: the etcd Secret or the configuration changed."""
        for follower in self._followers.values():
            follower.relocate()

    def registered(self, namespace: str, vmodel: str) -> bool | None:
        """Tells whether a registry has a vmodel; None while it cannot be read."""
        follower = self._followers.get(namespace)
        return None if follower is None else follower.registered(vmodel)

    def instances(self, namespace: str) -> list[InstanceRecord] | None:
        """Returns the records of a namespace's mesh instances; None while they cannot be read."""
        follower = self._followers.get(namespace)
        return None if follower is None else follower.instances()

    async def run(self) -> None:
        """Follows until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            for namespace, follower in self._followers.items():
                self._tasks[namespace] = self._group.create_task(follower.run())
            await asyncio.Event().wait()

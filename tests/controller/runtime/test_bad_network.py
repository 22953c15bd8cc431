"""A cache behind a network that misbehaves, on a real API server."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from api.core import CONFIG_MAP, ConfigMap
from controller.runtime import Informer, Scope
from controller.runtime import reflector as reflectors
from controller.runtime.testing import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from controller.runtime import HttpClient
    from controller.runtime.testing import KubeApiServer

pytestmark = pytest.mark.e2e


@pytest.fixture
async def line(kube_server: KubeApiServer) -> AsyncIterator[tuple[Proxy, HttpClient]]:
    async with Proxy(kube_server.port) as proxy:
        user = f"admin-{secrets.token_hex(4)}"
        kubeconfig = kube_server.kubeconfig_for(user, "system:masters", url=proxy.url)
        async with await kube_server.client(kubeconfig) as client:
            yield proxy, client


def _config(namespace: str, name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}}


async def _follow(
    informer: Informer[ConfigMap], disturb: Callable[[int], Awaitable[None]], steps: int
) -> None:
    running = asyncio.create_task(informer.run())
    await informer.wait_synced()
    for step in range(steps):
        await disturb(step)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_watch_that_is_cut_again_and_again_misses_nothing(
    line: tuple[Proxy, HttpClient], kube_client: HttpClient, kube_namespace: str, eventually: Any
) -> None:
    proxy, client = line
    informer = Informer(client, ConfigMap, Scope((kube_namespace,)))

    async def cut(step: int) -> None:
        await proxy.cut()
        await kube_client.create(CONFIG_MAP, _config(kube_namespace, f"c{step}"))
        await eventually(lambda: informer.get(f"c{step}", kube_namespace))
        await kube_client.delete(CONFIG_MAP, f"c{step}", kube_namespace)
        await eventually(lambda: not informer.get(f"c{step}", kube_namespace))

    await _follow(informer, cut, 4)


async def test_a_watch_that_falls_silent_is_noticed_and_opened_anew(
    line: tuple[Proxy, HttpClient],
    kube_client: HttpClient,
    kube_namespace: str,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The connections of before stay open and carry nothing, as behind a firewall that forgot them."""
    proxy, client = line
    defaults = reflectors.Reflector.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "inactivity", 1.0)
    informer = Informer(client, ConfigMap, Scope((kube_namespace,)))

    async def freeze(_step: int) -> None:
        await kube_client.create(CONFIG_MAP, _config(kube_namespace, "before"))
        await eventually(lambda: informer.get("before", kube_namespace))
        proxy.freeze()
        await kube_client.create(CONFIG_MAP, _config(kube_namespace, "after"))
        await eventually(lambda: informer.get("after", kube_namespace))

    await _follow(informer, freeze, 1)

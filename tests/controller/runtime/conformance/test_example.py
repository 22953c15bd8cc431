"""The operator of the documentation works as it says, on both servers."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from api.core import CONFIG_MAP, EVENT
from controller.runtime.errors import NotFound
from controller.runtime.testing import install_definitions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controller.runtime import Client

EXAMPLES = Path(__file__).parents[4] / "docs" / "examples"
DEADLINE_S = 30.0


@pytest.fixture
def example() -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("greeting_operator", EXAMPLES / "greeting_operator.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


async def test_the_example_greets_and_mends(client: Client, namespace: str, example: Any) -> None:
    await install_definitions(client, [yaml.safe_load((EXAMPLES / "greeting.yaml").read_text())])
    manager = example.build(client, namespace)
    running = asyncio.create_task(manager.run())
    await manager.wait_ready()
    body = {"metadata": {"name": "g", "namespace": namespace}, "spec": {"to": "world"}}
    await client.create(example.GREETING, body)

    async def says(text: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    found = await client.get(CONFIG_MAP, "greeting-g", namespace)
                except NotFound:
                    found = {}
                if found.get("data") == {"text": text}:
                    return
                await asyncio.sleep(0.02)

    async def is_observed(generation: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                found = await client.get(example.GREETING, "g", namespace)
                if found.get("status") == {"phase": "Ready", "observedGeneration": generation}:
                    return
                await asyncio.sleep(0.02)

    await says("Hello world!")
    await is_observed(1)
    await client.patch(CONFIG_MAP, "greeting-g", namespace, {"data": {"text": "Go away"}})
    await says("Hello world!")
    await client.delete(CONFIG_MAP, "greeting-g", namespace)
    await says("Hello world!")
    await client.patch(example.GREETING, "g", namespace, {"spec": {"to": "everybody"}})
    await says("Hello everybody!")
    await is_observed(2)
    events = (await client.list(EVENT, namespace, field_selector="involvedObject.kind=Greeting")).items
    assert {event["reason"] for event in events} == {"Greeted"}
    manager.stop()
    await running

"""Custom resources in an API server that tests use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from api.core import CRD
from api.resource import Resource
from controller.runtime.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controller.runtime.client import JSON, Client

_DEADLINE_S = 30.0
_MANAGER = "test-environment"


async def install_definitions(client: Client, definitions: Iterable[JSON]) -> None:
    """Apply CustomResourceDefinitions and return when their objects are served.

    Raises:
        ApiError: the server refuses one.
        TimeoutError: one was accepted and is not served; its conditions say why.
    """
    definitions = list(definitions)
    for definition in definitions:
        await client.apply(CRD, definition, field_manager=_MANAGER)
    async with asyncio.timeout(_DEADLINE_S):
        for definition in definitions:
            for resource in served(definition):
                await _until_served(client, resource)


def served(definition: JSON) -> list[Resource]:
    """Return the resources of a CustomResourceDefinition, one for each served version."""
    spec = definition["spec"]
    names = spec["names"]
    return [
        Resource(
            group=spec["group"],
            version=version["name"],
            kind=names["kind"],
            plural=names["plural"],
            namespaced=spec["scope"] == "Namespaced",
        )
        for version in spec["versions"]
        if version.get("served")
    ]


async def _until_served(client: Client, resource: Resource) -> None:
    while True:
        try:
            await client.list(resource, limit=1)
        except NotFound:
            await asyncio.sleep(0.05)
        else:
            return

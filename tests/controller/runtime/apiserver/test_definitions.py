from __future__ import annotations

import asyncio
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from api.core import CRD
from controller.runtime.apiserver import Core, MemoryClient
from controller.runtime.errors import Invalid, NotFound

if TYPE_CHECKING:
    from api.resource import Resource

_SHIPPED = sorted((Path(__file__).parents[4] / "config" / "crd").glob("*.yaml"))


async def test_a_definition_created_by_the_api_is_served_until_it_is_deleted(
    client: MemoryClient,
    widget_resource: Resource,
    widget: dict[str, Any],
) -> None:
    await client.create(widget_resource, widget)
    watch = client.watch(widget_resource, resource_version="0")
    assert (await anext(watch)).type == "ADDED"
    ending = asyncio.ensure_future(anext(watch))
    await client.delete(CRD, "widgets.test.example.com")
    with pytest.raises(NotFound):
        await client.get(widget_resource, "w", "ns")
    assert (await asyncio.wait_for(ending, 5)).type == "DELETED"


async def test_it_reports_that_it_is_established(client: MemoryClient) -> None:
    made = await client.get(CRD, "widgets.test.example.com")
    conditions = {condition["type"]: condition["status"] for condition in made["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    assert made["status"]["acceptedNames"]["listKind"] == "WidgetList"


async def test_a_changed_definition_applies_to_the_next_write(
    core: Core,
    client: MemoryClient,
    widget_resource: Resource,
    widget: dict[str, Any],
) -> None:
    changed = deepcopy(await client.get(CRD, "widgets.test.example.com"))
    spec = changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["added"] = {"type": "string", "default": "yes"}
    core.register_definition(
        {key: changed[key] for key in ("apiVersion", "kind", "spec")}
        | {"metadata": {"name": changed["metadata"]["name"]}}
    )
    assert (await client.create(widget_resource, widget))["spec"]["added"] == "yes"


async def test_what_is_wrong_with_a_definition_is_named(client: MemoryClient) -> None:
    version = {"name": "v1", "served": True, "additionalPrinterColumns": [{"name": "A", "jsonPath": ".a["}]}
    spec = {"group": "x.example.com", "names": {"plural": "xs"}, "versions": [version]}
    with pytest.raises(Invalid) as caught:
        await client.create(CRD, {"metadata": {"name": "wrong"}, "spec": spec})
    fields = [cause["field"] for cause in (caught.value.details or {})["causes"]]
    assert fields == [
        "spec.scope",
        "spec.names.kind",
        "metadata.name",
        "spec.versions[0].schema.openAPIV3Schema",
        "spec.versions[0].additionalPrinterColumns[0].jsonPath",
    ]


@pytest.mark.parametrize("path", _SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_definitions_are_served(path: Path) -> None:
    core = Core()
    definition = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    core.register_definition(definition)
    spec = definition["spec"]
    assert core.kinds.find(spec["group"], spec["versions"][0]["name"], spec["names"]["plural"]).custom


def test_there_are_shipped_definitions() -> None:
    assert len(_SHIPPED) == 4

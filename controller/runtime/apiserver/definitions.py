"""CustomResourceDefinitions: from the object a user creates to a resource that is served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from api.resource import Resource
from controller.runtime.apiserver.jsonpath import compile_path
from controller.runtime.apiserver.kinds import METADATA_FIELDS, ScalePaths, ServedKind
from controller.runtime.apiserver.schema import Cause, invalid, required
from controller.runtime.apiserver.tables import custom_columns
from controller.runtime.apiserver.values import get_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controller.runtime.client import JSON


def prepare_definition(definition: JSON) -> None:
    """Fill in the names that default, and the conditions `kubectl wait` looks at."""
    names = definition.setdefault("spec", {}).setdefault("names", {})
    kind = str(names.get("kind", ""))
    names.setdefault("singular", kind.lower())
    names.setdefault("listKind", f"{kind}List")
    definition["spec"].setdefault("conversion", {"strategy": "None"})
    since = definition["metadata"].get("creationTimestamp")
    status = definition.setdefault("status", {})
    status.setdefault(
        "conditions",
        [
            {"type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "lastTransitionTime": since},
            {
                "type": "Established",
                "status": "True",
                "reason": "InitialNamesAccepted",
                "lastTransitionTime": since,
            },
        ],
    )
    status["acceptedNames"] = dict(names)
    stored = [
        version.get("name") for version in definition["spec"].get("versions") or () if version.get("storage")
    ]
    status["storedVersions"] = stored


def check_definition(definition: JSON, _old: JSON | None) -> Iterator[Cause]:
    """Yield what is wrong with a definition."""
    spec = definition["spec"]
    for needed in ("group", "scope", "versions", "names.plural", "names.kind"):
        if not get_path(spec, *needed.split(".")):
            yield required(f"spec.{needed}")
    expected = f"{get_path(spec, 'names', 'plural')}.{spec.get('group')}"
    if definition["metadata"]["name"] != expected:
        yield invalid(
            "metadata.name", definition["metadata"]["name"], 'must be spec.names.plural+"."+spec.group'
        )
    for index, version in enumerate(spec.get("versions") or ()):
        path = f"spec.versions[{index}]"
        if not get_path(version, "schema", "openAPIV3Schema"):
            yield required(f"{path}.schema.openAPIV3Schema", "schemas are required")
        for number, column in enumerate(version.get("additionalPrinterColumns") or ()):
            try:
                compile_path(column.get("jsonPath", ""))
            except ValueError as error:
                where = f"{path}.additionalPrinterColumns[{number}].jsonPath"
                yield invalid(where, column.get("jsonPath"), str(error))


def served_kinds(definition: JSON) -> list[ServedKind]:
    """Return one kind for each version that the definition serves."""
    spec = definition["spec"]
    names = spec["names"]
    return [
        _served(
            Resource(
                spec["group"],
                version["name"],
                names["kind"],
                names["plural"],
                namespaced=spec["scope"] == "Namespaced",
            ),
            names,
            version,
        )
        for version in spec["versions"]
        if version.get("served")
    ]


def _served(resource: Resource, names: JSON, version: JSON) -> ServedKind:
    subresources = version.get("subresources") or {}
    scale = subresources.get("scale")
    selectable = (field["jsonPath"].removeprefix(".") for field in version.get("selectableFields") or ())
    return ServedKind(
        resource=resource,
        singular=names["singular"],
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        has_status="status" in subresources,
        scale=_scale_paths(scale) if scale else None,
        schema=version["schema"]["openAPIV3Schema"],
        columns=custom_columns(version.get("additionalPrinterColumns") or []),
        selectable=METADATA_FIELDS | frozenset(selectable),
    )


def _scale_paths(scale: JSON) -> ScalePaths:
    def keys(name: str) -> tuple[str, ...]:
        return tuple(str(scale.get(name, "")).removeprefix(".").split("."))

    return ScalePaths(keys("specReplicasPath"), keys("statusReplicasPath"), keys("labelSelectorPath"))

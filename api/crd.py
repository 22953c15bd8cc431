"""Generates `config/crd` and `config/admission`: `python -m api.crd`; `--check` names what is out of date.

Our own types give the schema of what is ours, their docstrings the text of `kubectl explain`. Types that
stand for one of Kubernetes' definitions (`Model.OPENAPI`) take that definition whole, so that a misspelt
or mistyped field of a container is refused by name. Parts taken from Kubernetes are written in flow style
and have no text.

`kubectl apply` keeps the object it applied in an annotation of at most 256 KiB, and an InferenceService
typed throughout would be larger. So some parts that ModelMesh never reads take any content (`_OPEN`):
probes, lifecycle and security context of framework blocks (not of `model`), and the larger parts of the
transformer's and explainer's pods other than their containers. Ephemeral containers are not part of an
InferenceService.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from api.core import CRD
from api.meta import JSON, KubeObject, Model
from api.resource import Resource
from api.schema import structural
from api.v1alpha1 import ClusterServingRuntime, Predictor, ServingRuntime
from api.v1alpha1.rules import AUTOSCALING
from api.v1beta1 import (
    ExplainerFrameworkSpec,
    ExplainerSpec,
    FrameworkSpec,
    InferenceService,
    TransformerSpec,
)
from api.v1beta1.rules import POLICY

CONFIG_DIR = Path(__file__).parent.parent / "config"
CRD_DIR = CONFIG_DIR / "crd"

MAX_BYTES = 256 * 1024
"""Limit of an object's annotations together, and so of what client-side apply can apply."""

Column = tuple[str, str, str]
_AGE: Column = ("Age", "date", ".metadata.creationTimestamp")
_RUNTIME_COLUMNS: tuple[Column, ...] = (
    ("Disabled", "boolean", ".spec.disabled"),
    ("ModelType", "string", ".spec.supportedModelFormats[*].name"),
    ("Containers", "string", ".spec.containers[*].name"),
    ("Ready", "string", ".status.conditions[?(@.type=='Ready')].status"),
    ("Pods", "integer", ".status.pods.ready"),
    ("Models", "integer", ".status.models"),
    ("Memory", "string", ".status.memory.used"),
    _AGE,
)
_PREVIOUS = ".status.components.predictor.traffic[?(@.tag=='prev')]"
_LATEST = ".status.components.predictor.traffic[?(@.latestRevision==true)]"

COLUMNS: dict[type[KubeObject], tuple[Column, ...]] = {
    ServingRuntime: _RUNTIME_COLUMNS,
    ClusterServingRuntime: _RUNTIME_COLUMNS,
    Predictor: (
        ("Type", "string", ".spec.modelType.name"),
        ("Available", "boolean", ".status.available"),
        ("ActiveModel", "string", ".status.activeModelState"),
        ("TargetModel", "string", ".status.targetModelState"),
        ("Transition", "string", ".status.transitionStatus"),
        _AGE,
    ),
    InferenceService: (
        ("URL", "string", ".status.url"),
        ("Ready", "string", ".status.conditions[?(@.type=='Ready')].status"),
        ("Prev", "integer", f"{_PREVIOUS}.percent"),
        ("Latest", "integer", f"{_LATEST}.percent"),
        ("PrevRolledoutRevision", "string", f"{_PREVIOUS}.revisionName"),
        ("LatestReadyRevision", "string", f"{_LATEST}.revisionName"),
        _AGE,
    ),
}
"""The kinds that we define and the columns of `kubectl get`: name, type, path."""

POLICIES = (AUTOSCALING, POLICY)
"""Rules that a CRD cannot hold."""

_SHORT_NAMES = {InferenceService: ["isvc"]}

_REMOVED = frozenset({"ephemeralContainers"})
_OPEN: dict[type[Model], frozenset[str]] = {
    **dict.fromkeys(
        (FrameworkSpec, ExplainerFrameworkSpec),
        frozenset({"lifecycle", "livenessProbe", "readinessProbe", "securityContext", "startupProbe"}),
    ),
    **dict.fromkeys(
        (TransformerSpec, ExplainerSpec),
        frozenset({"affinity", "initContainers", "securityContext", "topologySpreadConstraints", "volumes"}),
    ),
}


_FILLED_IN_BY_KSERVE = {"hostAliases": "ip", "httpGet": "port", "os": "name", "tcpSocket": "port"}
"""Fields that Kubernetes requires in a pod and KServe's InferenceService lets out."""


class _Schema(GenerateJsonSchema):
    """Pydantic's JSON schema, in the words that a CRD knows."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JSON:
        """An optional field is left out, never null."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JSON:
        """Defaults of the Python types are not defaults of the API; those are in `json_schema_extra`."""
        return self.generate_inner(schema["schema"])

    def model_schema(self, schema: core_schema.ModelSchema) -> JSON:
        """A type that stands for a definition of Kubernetes has that, and what a subclass adds."""
        cls = schema["cls"]
        base = next((c for c in cls.__mro__ if issubclass(c, Model) and vars(c).get("OPENAPI")), None)
        if base is None:
            return super().model_schema(schema)
        theirs = structural(base.OPENAPI)
        if cls is base:
            return theirs
        ours = super().model_schema(schema)
        inherited = {field.alias for field in base.model_fields.values()}
        properties = {name: part for name, part in ours["properties"].items() if name not in inherited}
        for name, part in theirs["properties"].items():
            if name not in _REMOVED:
                open_part = name in _OPEN.get(cls, ())
                properties.setdefault(name, _any_content(part) if open_part else part)
        return {"type": "object", "description": ours["description"], "properties": properties}


def _any_content(part: JSON) -> JSON:
    anything = {"x-kubernetes-preserve-unknown-fields": True}
    if part["type"] == "array":
        return {"type": "array", "items": {"type": "object", **anything}}
    return {"type": part["type"], **anything}


def _resolve(schema: JSON, definitions: JSON) -> JSON:
    """Replace references by what they refer to, and drop what a structural schema must not say."""
    if "$ref" in schema:
        target = definitions[schema["$ref"].rpartition("/")[2]]
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return _resolve({**target, **beside}, definitions)
    out = {key: value for key, value in schema.items() if key != "title"}
    if out.get("additionalProperties") is True:
        del out["additionalProperties"]
    if "properties" in out:
        out["properties"] = {name: _resolve(part, definitions) for name, part in out["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in out:
            out[key] = _resolve(out[key], definitions)
    return out


def _as_kserve(node: JSON) -> None:
    for name, part in node.get("properties", {}).items():
        owner = part.get("items", part)
        if owner.get("required") == [_FILLED_IN_BY_KSERVE.get(name)]:
            del owner["required"]
        _as_kserve(part)
    for key in ("items", "additionalProperties"):
        if key in node:
            _as_kserve(node[key])


def _at(node: JSON, path: str) -> JSON:
    for name in path.split("."):
        node = node["properties"][name.removesuffix("[]")]
        if name.endswith("[]"):
            node = node["items"]
    return node


def _add_rules(node: JSON, field: str, cls: type[Model]) -> None:
    for path, most in cls.MAX_ITEMS.items():
        _at(node, path)["maxItems"] = most
    for path, most in cls.MAX_LENGTH.items():
        _at(node, path)["maxLength"] = most
    if cls.RULES:
        node["x-kubernetes-validations"] = [
            rule.dump(field_path=rule.field.removeprefix(field)) for rule in cls.RULES
        ]


def schema(cls: type[KubeObject]) -> JSON:
    """The structural schema of a kind."""
    raw = cls.model_json_schema(by_alias=True, schema_generator=_Schema)
    out = _resolve({key: value for key, value in raw.items() if key != "$defs"}, raw["$defs"])
    spec = cls.model_fields["spec"].annotation
    if isinstance(spec, type) and issubclass(spec, Model):
        _add_rules(out["properties"]["spec"], "spec", spec)
    if cls is InferenceService:
        _as_kserve(out)
    properties = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    }
    return out | {"properties": out["properties"] | properties}


def definition(cls: type[KubeObject]) -> JSON:
    """The CustomResourceDefinition of a kind."""
    resource = cls.RESOURCE
    names: JSON = {
        "kind": resource.kind,
        "listKind": resource.list_kind,
        "plural": resource.plural,
        "singular": resource.kind.lower(),
    }
    if cls in _SHORT_NAMES:
        names |= {"shortNames": _SHORT_NAMES[cls]}
    version = {
        "name": resource.version,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [
            {"name": name, "type": kind, "jsonPath": path} for name, kind, path in COLUMNS[cls]
        ],
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema(cls)},
    }
    return {
        "apiVersion": CRD.api_version,
        "kind": CRD.kind,
        "metadata": {"name": f"{resource.plural}.{resource.group}"},
        "spec": {
            "group": resource.group,
            "names": names,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "versions": [version],
        },
    }


_TEXT = frozenset({"description", "expression", "message", "openAPIV3Schema"})


class _Flow(JSON):
    """A mapping that is written in flow style."""


def _layout(node: Any) -> Any:
    """Mark the mappings that have no text of ours in them."""
    if isinstance(node, list):
        return [_layout(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {key: _layout(value) for key, value in node.items()} if _has_text(node) else _Flow(node)


def _has_text(node: Any) -> bool:
    if isinstance(node, dict):
        whole = isinstance(node.get("apiVersion"), str)
        return whole or bool(_TEXT & node.keys()) or any(map(_has_text, node.values()))
    return isinstance(node, list) and any(map(_has_text, node))


class _Dumper(yaml.CSafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


_Dumper.add_representer(
    _Flow, lambda dumper, part: dumper.represent_mapping("tag:yaml.org,2002:map", part, flow_style=True)
)


def _yaml(documents: list[JSON]) -> str:
    text = yaml.dump_all(
        [_layout(document) for document in documents], Dumper=_Dumper, sort_keys=False, width=110
    )
    return f"# Generated by `python -m api.crd` from the types in api/.\n{text}"


def file_name(resource: Resource) -> str:
    """Name of a kind's file in `config/crd/`."""
    return f"{resource.group}_{resource.plural}.yaml"


def files() -> Iterator[tuple[str, str]]:
    """Path below `config/` and content of every file."""
    for cls in COLUMNS:
        yield f"crd/{file_name(cls.RESOURCE)}", _yaml([definition(cls)])
    for policy in POLICIES:
        yield f"admission/{policy.name}.yaml", _yaml(policy.dump())


def outdated() -> list[str]:
    """Paths of the files that differ from what the types say."""
    return [
        name
        for name, text in files()
        if not (CONFIG_DIR / name).exists() or (CONFIG_DIR / name).read_text() != text
    ]


def main(argv: list[str] | None = None) -> int:
    """Write the files, or with `--check` name those that are out of date and return 1."""
    parser = argparse.ArgumentParser(
        prog="python -m api.crd", description="Generate CRDs and admission policies in config/."
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where a file is out of date"
    )
    if parser.parse_args(argv).check:
        names = outdated()
        for name in names:
            sys.stderr.write(f"config/{name} is out of date: run `python -m api.crd`\n")
        return 1 if names else 0
    for name, text in files():
        path = CONFIG_DIR / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

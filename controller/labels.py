"""Labels that say which runtimes can load a model.

A runtime's pods carry a set (`MM_LABELS`); a model's type is a required subset, its members joined by `|`.
`mt:` is a model format, `pv:` an inference protocol, `rt:` a runtime by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from api.v1alpha1 import PredictorSpec, ServingRuntimeSpec

NO_RUNTIME = "_no_runtime"
"""A label no pod has: what the mesh requires for a type that no runtime supports."""


def format_labels(spec: ServingRuntimeSpec) -> set[str]:
    """Returns the `mt:` labels: formats that the runtime takes without being named."""
    labels = set()
    for model_format in spec.supported_model_formats or ():
        if model_format.auto_select:
            labels.add(f"mt:{model_format.name}")
            if model_format.version:
                labels.add(f"mt:{model_format.name}:{model_format.version}")
    return labels


def protocol_labels(spec: ServingRuntimeSpec, *, rest: bool) -> set[str]:
    """Returns the `pv:` labels; `rest`: gRPC V2 is offered as REST V2 as well."""
    protocols = set(spec.protocol_versions or ())
    if rest and "grpc-v2" in protocols:
        protocols.add("v2")
    return {f"pv:{protocol}" for protocol in protocols}


def runtime_labels(name: str, spec: ServingRuntimeSpec, *, rest: bool) -> tuple[str, ...]:
    """Returns all labels of a runtime's pods, sorted."""
    return tuple(sorted({*format_labels(spec), *protocol_labels(spec, rest=rest), f"rt:{name}"}))


def model_type(spec: PredictorSpec) -> str:
    """Returns the type under which the mesh places the model.

    A named runtime is taken at its word: format and protocol then play no part.
    """
    if spec.runtime and spec.runtime.name:
        return f"rt:{spec.runtime.name}"
    label = f"mt:{spec.model_type.name}"
    if spec.model_type.version:
        label += f":{spec.model_type.version}"
    return f"{label}|pv:{spec.protocol_version}" if spec.protocol_version else label


def supports(labels: Collection[str], type_: str) -> bool:
    """Tells whether a runtime with these labels can load a model of this type."""
    return set(type_.split("|")) <= set(labels)

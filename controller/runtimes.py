"""The runtimes of one namespace, and which of them could load a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from controller import labels
from controller.status import NO_SUPPORTING_RUNTIME, RUNTIME_NOT_RECOGNIZED, Reason, Support

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from api.v1alpha1 import ClusterServingRuntime, PredictorSpec, ServingRuntime, ServingRuntimeSpec


def collect(
    cluster: Iterable[ClusterServingRuntime],
    namespaced: Iterable[ServingRuntime],
) -> dict[str, ServingRuntime | ClusterServingRuntime]:
    """Returns the runtimes that count in a namespace, by name.

    A namespaced runtime hides the cluster's runtime of the same name, even one that is not ModelMesh's.
    """
    found: dict[str, ServingRuntime | ClusterServingRuntime] = {
        runtime.name: runtime for runtime in cluster if runtime.spec.multi_model
    }
    return found | {runtime.name: runtime for runtime in namespaced}


def enabled(
    runtimes: Mapping[str, ServingRuntime | ClusterServingRuntime],
) -> dict[str, ServingRuntimeSpec]:
    """Returns the specs of those that may have pods."""
    return {
        name: runtime.spec
        for name, runtime in runtimes.items()
        if runtime.spec.multi_model and not runtime.spec.disabled
    }


@dataclass(frozen=True, slots=True)
class Catalog:
    """What the enabled runtimes of a namespace can load.

    Attributes:
        specs: enabled multi-model runtimes by name.
        rest: whether gRPC V2 is offered as REST V2 as well.
    """

    specs: Mapping[str, ServingRuntimeSpec]
    rest: bool

    def supporting(self, model: PredictorSpec) -> list[str]:
        """Returns the names of the runtimes that can load a model, sorted."""
        wanted = labels.model_type(model)
        return sorted(
            name
            for name, spec in self.specs.items()
            if labels.supports(labels.runtime_labels(name, spec, rest=self.rest), wanted)
        )

    def support(self, model: PredictorSpec) -> Support:
        """Tells whether any runtime can load a model, and for users why none can."""
        if names := self.supporting(model):
            return Support(runtimes=tuple(names))
        if model.runtime and model.runtime.name:
            return Support(
                exists=False,
                reason=Reason.RUNTIME_NOT_RECOGNIZED,
                message=f"{RUNTIME_NOT_RECOGNIZED}: {model.runtime.name}; {self._offer_names()}",
            )
        return Support(exists=False, message=f"{NO_SUPPORTING_RUNTIME}: {_wish(model)}; {self._offer()}")

    def _offer_names(self) -> str:
        return f"runtimes are {', '.join(sorted(self.specs))}" if self.specs else "no runtime is enabled"

    def _offer(self) -> str:
        if not self.specs:
            return "no runtime is enabled"
        offers = (f"{name} supports {_abilities(spec, rest=self.rest)}" for name, spec in self.specs.items())
        return "; ".join(sorted(offers))


def _wish(model: PredictorSpec) -> str:
    version = f" version {model.model_type.version}" if model.model_type.version else ""
    protocol = f" with protocol {model.protocol_version}" if model.protocol_version else ""
    return f"format {model.model_type.name}{version}{protocol}"


def _abilities(spec: ServingRuntimeSpec, *, rest: bool) -> str:
    formats = sorted(label.removeprefix("mt:") for label in labels.format_labels(spec))
    protocols = sorted(label.removeprefix("pv:") for label in labels.protocol_labels(spec, rest=rest))
    over = f" over {', '.join(protocols)}" if protocols else ""
    return f"{', '.join(formats) or 'only models that name it'}{over}"

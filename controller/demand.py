"""What the models of each namespace ask of its runtimes, counted as they come and go.

A runtime has pods where some model could be loaded by it. Asked at every change, that must not cost a look at
every model: there are thousands of them and few kinds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from controller import claims, labels
from controller.errors import InvalidSpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from api.v1alpha1 import PredictorSpec
    from controller.model_kinds import ModelKind


class Wish(NamedTuple):
    """What one model needs: a type that a runtime must support, and the claim its files are on, if any."""

    type: str
    claim: str = ""


class Demand:
    """Counts the wishes of each namespace; models of other systems and invalid ones have none."""

    def __init__(self) -> None:
        self._wishes: dict[str, Counter[Wish]] = defaultdict(Counter)

    def follow(self, kind: ModelKind[Any]) -> Callable[[Any, Any], None]:
        """Returns the handler to give to the informer of a kind of model."""

        def changed(old: Any, new: Any) -> None:
            before, now = _wish(kind, old), _wish(kind, new)
            if before == now:
                return
            if before is not None:
                self._drop(old.namespace, before)
            if now is not None:
                self._wishes[new.namespace][now] += 1

        return changed

    def of(self, namespace: str, supported: Collection[str]) -> list[Wish]:
        """Returns the different wishes of a namespace that a runtime with the labels `supported` can meet."""
        return [wish for wish in self._wishes.get(namespace, ()) if labels.supports(supported, wish.type)]

    def _drop(self, namespace: str, wish: Wish) -> None:
        wishes = self._wishes[namespace]
        wishes[wish] -= 1
        if not wishes[wish]:
            del wishes[wish]
        if not wishes:
            del self._wishes[namespace]


def model_of(kind: ModelKind[Any], obj: Any) -> PredictorSpec | None:
    """Returns the model that an object describes; None where it is another system's, or invalid."""
    if not kind.is_ours(obj):
        return None
    try:
        spec: PredictorSpec = kind.spec(obj)
    except InvalidSpecError:
        # It shows in the object's status, and asks for no runtime.
        return None
    return spec


def _wish(kind: ModelKind[Any], obj: Any) -> Wish | None:
    model = None if obj is None else model_of(kind, obj)
    return None if model is None else Wish(labels.model_type(model), claims.of_model(model))

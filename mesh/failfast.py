"""Whether an instance that has just started is fit to serve: pure bookkeeping of its first loads.

A new release of a server, or of its settings, may be unable to load what the old one serves. An instance that
finds that out while it is new stays out of service for good, which stops a rolling update before it takes the
instances away that work. The numbers are the original's.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from store.records import ModelRecord

MAX_FATAL = 2
"""Failures of models that others have loaded, after which it is this instance's fault."""
LEAST_LOADS, FAILED_SHARE = 20, 0.5
"""Of more loads than this, more than this part failed: so many models are not broken at a time."""
OLD_FAILURE_MS = 30 * 60_000
"""A model that failed somewhere so long ago is broken, and tells nothing."""


@dataclass(frozen=True, slots=True)
class FailFastTerms:
    """When the rule applies."""

    enabled: bool = True
    period_ms: int = 180_000
    """After the start."""


USUAL_TERMS = FailFastTerms()


@dataclass(slots=True)
class FailFast:
    """The loads of one instance since its start, at `started` (ms since 1970)."""

    terms: FailFastTerms
    started: int
    own_id: str
    is_live: Callable[[str], bool]
    """Of other instances."""
    verdict: str = ""
    """Why this instance is not fit to serve; empty where it may be."""
    _fatal: int = 0
    _failed: int = 0
    _loaded: int = 0
    _models: set[str] = field(default_factory=set)
    """That have failed: each counts once."""

    def loaded(self) -> None:
        """A load has ended well."""
        self._loaded += 1

    def failed(
        self, model_id: str, record: ModelRecord | None, *, under_way: int, load_timeout_ms: int, now: int
    ) -> bool:
        """A load has failed; `under_way` others go on. Returns whether that has decided it."""
        if not self.terms.enabled or self.verdict or now - self.started > self.terms.period_ms:
            return False
        if record is None or model_id in self._models:
            return False
        elsewhere = any(
            now - loaded >= load_timeout_ms and id_ != self.own_id and self.is_live(id_)
            for id_, loaded in record.loaded.items()
        )
        if elsewhere:
            self._fatal += 1
        elif any(now - failed > OLD_FAILURE_MS for failed in record.failed.values()):
            return False
        else:
            self._failed += 1
        self._models.add(model_id)
        failures = self._fatal + self._failed
        total = self._loaded + under_way + failures
        if self._fatal > MAX_FATAL:
            self.verdict = f"{self._fatal} models that others serve failed to load here after the start"
        elif total > LEAST_LOADS and failures > FAILED_SHARE * total:
            self.verdict = f"{failures} of the first {total} loads failed after the start"
        return bool(self.verdict)

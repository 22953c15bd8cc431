"""What becomes of a model's record when something happens to one of its copies.

Pure changes for `Registry.update`, and the rule for how long a failed instance is not asked again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from mesh.errors import LoadFailedError
from store.records import Failure, ModelRecord, Resources

FIRST_RETRY_MS = 10_000
"""An instance where a load failed is asked again after 10 s, then after twice as long each time."""
MAX_FAILURE_TEXT = 4_096
"""Characters kept of what the server says of a failed load: every instance holds every record."""
MAX_FAILURES = 3
"""Instances where a model failed lately; with this many it is not tried anywhere else."""

Change = Callable[[ModelRecord | None], ModelRecord | None]


@dataclass(frozen=True, slots=True)
class FailureTerms:
    """How long a failed load counts against an instance."""

    expiry_ms: int = 900_000
    """A failure is forgotten after so long; `MM_LOAD_FAILURE_EXPIRY_TIME_MS`, with the original's default."""

    @property
    def longest_rest_ms(self) -> int:
        """A model that somebody asks for is tried again after half that time, as in the original."""
        return self.expiry_ms // 2

    def retry_at(self, record: ModelRecord, instance_id: str) -> int:
        """When an instance where the model failed may be asked again, ms since 1970; 0: at any time."""
        if instance_id not in record.failed:
            return 0
        failures = record.failures.get(instance_id)
        times = max(1, min(failures.n if failures else 1, 20))
        return record.failed[instance_id] + min(FIRST_RETRY_MS * (1 << (times - 1)), self.longest_rest_ms)

    def expired(self, record: ModelRecord, instance_id: str, now: int) -> bool:
        """Whether a failure is too long ago to matter."""
        return instance_id in record.failed and now >= record.failed[instance_id] + self.expiry_ms


USUAL_TERMS = FailureTerms()


def without(mapping: Mapping[str, int], instance_id: str) -> dict[str, int]:
    """The same without one instance."""
    return {key: value for key, value in mapping.items() if key != instance_id}


def claimed(instance_id: str, now: int, last_used: int) -> Change:
    """An instance begins to load the model."""

    def change(record: ModelRecord | None) -> ModelRecord | None:
        if record is None:
            return None
        return replace(
            record,
            instances={**record.instances, instance_id: now},
            loaded=without(record.loaded, instance_id),
            failed=without(record.failed, instance_id),
            last_used=max(record.last_used, last_used),
        )

    return change


def loaded(instance_id: str, now: int, size: Resources) -> Change:
    """An instance has loaded the model."""

    def change(record: ModelRecord | None) -> ModelRecord | None:
        if record is None:
            return None
        return replace(
            record,
            instances={instance_id: now, **record.instances},
            loaded={**record.loaded, instance_id: now},
            failed=without(record.failed, instance_id),
            failures={key: value for key, value in record.failures.items() if key != instance_id},
            size=size,
        )

    return change


def failed(instance_id: str, now: int, error: LoadFailedError) -> Change:
    """An instance could not load the model."""

    def change(record: ModelRecord | None) -> ModelRecord | None:
        if record is None:
            return None
        known = record.failures.get(instance_id)
        failure = Failure(
            msg=str(error)[:MAX_FAILURE_TEXT], code=error.cause.name, n=known.n + 1 if known else 1
        )
        return replace(
            record,
            instances=without(record.instances, instance_id),
            loaded=without(record.loaded, instance_id),
            failed={**record.failed, instance_id: now},
            failures={**record.failures, instance_id: failure},
        )

    return change


def gone(instance_id: str, *, now: int = 0, last_used: int = 0) -> Change:
    """An instance has no copy any more.

    With `now`, the time is kept as that of an unload. `last_used` is what the copy knew: how soon the model
    may come back depends on it.
    """

    def change(record: ModelRecord | None) -> ModelRecord | None:
        if record is None or instance_id not in record.instances:
            return record
        left = without(record.instances, instance_id)
        return replace(
            record,
            instances=left,
            loaded=without(record.loaded, instance_id),
            last_used=max(record.last_used, last_used),
            last_unload=now if len(left) > 1 else 0,
        )

    return change


def too_large(instance_id: str, size: Resources) -> Change:
    """An instance found out, by loading it, that the model is larger than its whole capacity."""

    def change(record: ModelRecord | None) -> ModelRecord | None:
        left = gone(instance_id)(record)
        return left and replace(left, size=size)

    return change


def used(last_used: int) -> Change:
    """The model was used at a time that its record may not know."""

    def change(record: ModelRecord | None) -> ModelRecord | None:
        if record is None or record.last_used >= last_used:
            return record
        return replace(record, last_used=last_used)

    return change


def short(text: str) -> Change:
    """Why the model has fewer copies than it shall have; empty where it has them."""

    def change(record: ModelRecord | None) -> ModelRecord | None:
        if record is None or (text and not record.min_copies):
            return record
        return replace(record, shortfall=text[:MAX_FAILURE_TEXT])

    return change


def vanished(instance_id: str, *, last_used: int = 0) -> Callable[[ModelRecord], ModelRecord]:
    """An instance does not exist any more, and neither do its copies and failures."""

    def change(record: ModelRecord) -> ModelRecord:
        return replace(
            record,
            instances=without(record.instances, instance_id),
            loaded=without(record.loaded, instance_id),
            failed=without(record.failed, instance_id),
            failures={key: value for key, value in record.failures.items() if key != instance_id},
            last_used=max(record.last_used, last_used),
        )

    return change


def forgiven(instance_id: str) -> Callable[[ModelRecord], ModelRecord]:
    """A failure on an instance does not matter any more."""

    def change(record: ModelRecord) -> ModelRecord:
        return replace(
            record,
            failed=without(record.failed, instance_id),
            failures={key: value for key, value in record.failures.items() if key != instance_id},
        )

    return change


def last_failure(record: ModelRecord) -> LoadFailedError | None:
    """The latest failure, as the error it was."""
    if not record.failed:
        return None
    latest = max(record.failed, key=lambda instance_id: record.failed[instance_id])
    failure = record.failures.get(latest, Failure(msg="the model could not be loaded"))
    return LoadFailedError.recorded(failure.msg, failure.code)

"""What a model's owner wants beyond what the mesh does by itself: its copies, and what eviction may take."""

from dataclasses import dataclass

from msgspec.structs import replace

from mesh.errors import InvalidRequestError
from store.records import ModelRecord


@dataclass(frozen=True, slots=True)
class Policy:
    """Wishes for one model. Raises InvalidRequestError where they contradict each other."""

    min_copies: int = 0
    max_copies: int = 0
    """0: as many as are useful."""
    pinned: bool = False
    """Never evicted; so it has a copy at least."""
    priority: int = 0
    """Copies of models with a lower one are evicted first."""

    def __post_init__(self) -> None:
        if self.max_copies and self.min_copies > self.max_copies:
            raise InvalidRequestError(
                f"a model cannot have at least {self.min_copies} and at most {self.max_copies} copies"
            )

    def applied(self, record: ModelRecord) -> ModelRecord:
        """The record with these wishes."""
        return replace(
            record,
            min_copies=max(self.min_copies, int(self.pinned)),
            max_copies=self.max_copies,
            pinned=self.pinned,
            priority=self.priority,
            shortfall=record.shortfall if self.pinned or self.min_copies else "",
        )

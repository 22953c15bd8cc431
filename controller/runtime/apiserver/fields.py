"""Field ownership (`metadata.managedFields`): who last set which field."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from controller.runtime.apiserver.kinds import ServedKind
    from controller.runtime.client import JSON


def track(
    _kind: ServedKind,
    _old: JSON | None,
    _new: JSON,
    _manager: str,
    _subresource: str,
    _now: datetime,
) -> None:
    """Record who owns the fields that a write changes."""

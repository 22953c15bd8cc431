"""Waiting for a condition: with a deadline, and saying what for."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_log = logging.getLogger("fvt")
_POLL_SECONDS = 0.5
_TELL_SECONDS = 10.0


class WaitedInVainError(AssertionError):
    """What was waited for did not come."""


def wait(look: Callable[[], T], what: str, seconds: float = 180) -> T:
    """Look until something true is seen, and return it.

    Args:
        look: returns what it sees. An AssertionError of it counts as not yet, and is told at the end.
        what: completes "waiting for ...".
        seconds: the deadline.

    Raises:
        WaitedInVainError: says what was waited for and what was seen last.
    """
    began = told = time.monotonic()
    _log.info("waiting for %s", what)
    while True:
        seen: object = None
        try:
            seen = found = look()
        except AssertionError as error:
            seen = error
        else:
            if found:
                _log.info("saw %s after %.1f s", what, time.monotonic() - began)
                return found
        now = time.monotonic()
        if now - began > seconds:
            raise WaitedInVainError(f"waited {seconds:.0f} s for {what}; last seen: {seen}")
        if now - told > _TELL_SECONDS:
            _log.info("still waiting for %s (%.0f of %.0f s): %.300s", what, now - began, seconds, seen)
            told = now
        time.sleep(_POLL_SECONDS)

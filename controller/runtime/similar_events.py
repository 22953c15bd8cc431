"""Keeps a component that has much to say from flooding the API server: two rules, both of client-go.

Events about one object with the same reason whose messages differ (a counter, an address in the text) are one
Event once there are more than `MESSAGES` of them in `INTERVAL` seconds; it shows the latest message. And one
object gets at most `BURST` writes of Events at once, then one every `REFILL` seconds; more are dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

MESSAGES = 10
INTERVAL = 600.0
BURST = 25
REFILL = 300.0
_REMEMBERED = 4096
"""Groups and objects that are remembered; what is forgotten starts anew."""


class SimilarEvents:
    """Says which events are combined and which are dropped. Times are seconds of any steady clock."""

    def __init__(self) -> None:
        self._messages: OrderedDict[Hashable, tuple[float, set[str]]] = OrderedDict()
        self._tokens: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def combined(self, group: Hashable, message: str, now: float) -> bool:
        """Count `message` among its group; return whether the group's events are shown as one by now."""
        last, messages = self._messages.pop(group, (now, set()))
        if now - last > INTERVAL:
            messages = set()
        if len(messages) <= MESSAGES:
            messages.add(message)
        self._messages[group] = now, messages
        if len(self._messages) > _REMEMBERED:
            self._messages.popitem(last=False)
        return len(messages) > MESSAGES

    def allowed(self, about: Hashable, now: float) -> bool:
        """Take one write of those that the object `about` may have; return whether there was one."""
        tokens, since = self._tokens.pop(about, (float(BURST), now))
        tokens = min(BURST, tokens + (now - since) / REFILL)
        allowed = tokens >= 1.0
        self._tokens[about] = tokens - allowed, now
        if len(self._tokens) > _REMEMBERED:
            self._tokens.popitem(last=False)
        return allowed

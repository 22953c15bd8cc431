"""Conditions: how the status of an object tells programs and people what is the matter."""

from pydantic import ConfigDict

from api.meta import Model


class Condition(Model):
    """One aspect of an object's state, such as Ready. Times are RFC 3339 strings."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str
    """Aspect, such as Ready."""
    status: str
    """True, False or Unknown."""
    reason: str | None = None
    """One word for the cause."""
    message: str | None = None
    """What happened and what to do."""
    severity: str | None = None
    """Error when empty, else Warning or Info."""
    last_transition_time: str | None = None
    """When status last changed."""

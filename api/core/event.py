"""Events (`v1`): what `kubectl describe` shows below an object."""

from typing import ClassVar, Literal

from pydantic import Field

from api.core.service import ObjectReference
from api.meta import JSON, KubeObject, Model
from api.resource import Resource

EVENT = Resource("", "v1", "Event", "events")


class EventSource(Model):
    """Who reported."""

    component: str | None = None
    host: str | None = None


class Event(KubeObject):
    """One thing that happened to an object, counted when it repeats. Times are RFC 3339 strings."""

    RESOURCE: ClassVar[Resource] = EVENT

    involved_object: ObjectReference = Field(default_factory=ObjectReference)
    type: Literal["Normal", "Warning"] = "Normal"
    reason: str = ""
    message: str = ""
    count: int = 0
    source: EventSource = Field(default_factory=EventSource)
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    event_time: str | None = None
    series: JSON | None = None
    action: str | None = None
    reporting_component: str | None = None
    reporting_instance: str | None = None

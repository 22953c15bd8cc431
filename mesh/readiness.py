"""Whether clients may be sent to this instance, and if not, why.

A pod that becomes ready lets a rolling update take the next old one away. So a new instance waits, once,
until no other is leaving: the copies of the pods that go are then made again a pod at a time. Where nobody
else serves there is nothing to spread out, and it does not wait.
"""

from collections.abc import Callable

from store.records import InstanceRecord
from store.table import Entry, Table


class Readiness:
    """Asked by probes; `tell` is called with the answer whenever something may have changed it.

    `verdict` says why this instance is not fit to serve, where it is not.
    """

    def __init__(
        self,
        instances: Table[InstanceRecord],
        own_id: str,
        *,
        server_is_ready: Callable[[], bool],
        is_leaving: Callable[[], bool],
        verdict: Callable[[], str] = str,
        tell: Callable[[bool], None],
    ) -> None:
        self._instances = instances
        self._own_id = own_id
        self._server_is_ready = server_is_ready
        self._is_leaving = is_leaving
        self._verdict = verdict
        self._tell = tell
        self._held = False
        self._started = False
        self._joined = False
        instances.subscribe(self._on_instance)

    def __bool__(self) -> bool:
        return not self.obstacle

    @property
    def obstacle(self) -> str:
        """Why clients should not come; empty where they may."""
        if self._is_leaving():
            return "this instance is leaving"
        if not self._server_is_ready():
            return "the model server is not ready"
        return self._verdict() or self._waits_for()

    def _waits_for(self) -> str:
        if self._held:
            return "the models of the settings are not there yet"
        if not self._started:
            return "the registry is not read yet"
        if not self._joined and (leaving := self._others_leaving()):
            return f"waiting until others have left: {', '.join(leaving)}"
        return ""

    def hold(self) -> None:
        """Is not ready until `release`: something comes first."""
        self._held = True

    def release(self) -> None:
        """Ends `hold`."""
        self._held = False
        self.changed()

    def start(self) -> None:
        """The table of instances has been read."""
        self._started = True
        self.changed()

    def changed(self) -> None:
        """Something happened that readiness may depend on."""
        ready = bool(self)
        self._joined = self._joined or ready
        self._tell(ready)

    def _others_leaving(self) -> list[str]:
        others = {id_: row.value for id_, row in self._instances.items() if id_ != self._own_id}
        if not any(record.ready and not record.shutdown for record in others.values()):
            return []
        return sorted(id_ for id_, record in others.items() if record.shutdown)

    def _on_instance(
        self, _id: str, _before: Entry[InstanceRecord] | None, _now: Entry[InstanceRecord] | None
    ) -> None:
        if self._started and not self._joined:
            self.changed()

"""ConfigMap `model-serving-config`: tells its author in an Event where it cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from controller.runtime.reconcile import Request, Result

if TYPE_CHECKING:
    from controller.configured import ConfigMaps, LiveConfiguration
    from controller.runtime.events import EventRecorder


@dataclass(slots=True)
class ConfigurationReconciler:
    """Reports problems; the configuration itself is read where it is used.

    Attributes:
        live: the configuration.
        config_maps: finds the ConfigMap.
        recorder: records Events.
    """

    live: LiveConfiguration
    config_maps: ConfigMaps
    recorder: EventRecorder

    async def reconcile(self, request: Request) -> Result:
        """Records an Event for a ConfigMap that is not in effect."""
        self.live.current()
        found = self.config_maps.get(request.name, request.namespace)
        if found is not None and self.live.problem:
            message = f"Not in effect: {self.live.problem}"
            await self.recorder.event(found, "Warning", "InvalidConfiguration", message)
        elif found is not None and (names := self.live.needs_restart):
            message = f"{' and '.join(names)} will be in effect once the controller is restarted"
            await self.recorder.event(found, "Warning", "RestartNeeded", message)
        return Result()

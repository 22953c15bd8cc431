"""Objects that do not parse are told about on themselves."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from api.core import Service
from api.v1alpha1 import Predictor, ServingRuntime
from api.v1beta1 import InferenceService
from controller.runtime import EventRecorder
from controller.unreadable import UnreadableObjects

OURS = {"serving.kserve.io/deploymentMode": "ModelMesh"}


def _raw(**metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "m", "namespace": "modelmesh-serving", "uid": "u"} | metadata, "spec": 7}


@pytest.mark.parametrize(
    ("kind", "metadata", "told"),
    [
        (Predictor, {}, True),
        (ServingRuntime, {}, True),
        (InferenceService, {"annotations": OURS}, True),
        (InferenceService, {}, False),
        (Service, {}, False),
    ],
)
async def test_only_objects_for_us_are_reported(
    idle_world: Any,
    kind: Any,
    metadata: dict[str, Any],
    told: bool,  # noqa: FBT001
) -> None:
    unreadable = UnreadableObjects()
    unreadable(kind, _raw(**metadata), ValueError("spec: not an object"))
    unreadable(Predictor, _raw(name="last"), ValueError("spec: not an object"))
    report = asyncio.create_task(unreadable.report(EventRecorder(idle_world.client, "controller")))
    events = await idle_world.events("Unreadable", kind="Predictor")
    await idle_world.asked(lambda _: True)
    report.cancel()
    with suppress(asyncio.CancelledError):
        await report
    everything = await idle_world.all("Event")
    about = [e for e in everything if e["involvedObject"]["name"] == "m"]
    assert [e["involvedObject"]["kind"] for e in about] == ([kind.RESOURCE.kind] if told else [])
    assert "spec: not an object" in events[0]["message"]

"""What becomes of a status when its object is no longer ours."""

from typing import Any

from api.v1beta1 import INFERENCE_SERVICE
from controller import withdrawal

OURS: dict[str, Any] = {
    "url": "grpc://modelmesh-serving.ns:8033",
    "components": {
        "predictor": {
            "url": "grpc://modelmesh-serving.ns:8033",
            "grpcUrl": "grpc://modelmesh-serving.ns:8033",
            "restUrl": "http://modelmesh-serving.ns:8008",
        },
    },
    "conditions": [{"type": "PredictorReady", "status": "True"}, {"type": "Ready", "status": "True"}],
    "modelStatus": {"transitionStatus": "UpToDate"},
    "observedGeneration": 2,
}
KSERVE: dict[str, Any] = {
    "url": "http://m.ns.example.com",
    "components": {"predictor": {"url": "http://m-predictor.ns.example.com", "latestReadyRevision": "m-1"}},
    "conditions": [{"type": "Ready", "status": "True"}],
    "modelStatus": {"transitionStatus": "UpToDate"},
}
NO_ANNOTATION = {"metadata": {"annotations": {"serving.kserve.io/deploymentMode": None}}}


def test_what_we_wrote_goes() -> None:
    assert withdrawal.inference_service(OURS) == {}


def test_what_others_wrote_stays() -> None:
    mixed = OURS | {
        "components": OURS["components"] | {"transformer": {"url": "http://t"}},
        "conditions": [*OURS["conditions"], {"type": "TransformerReady", "status": "True"}],
        "other": 1,
    }
    assert withdrawal.inference_service(mixed) == {
        "components": {"transformer": {"url": "http://t"}},
        "conditions": [{"type": "TransformerReady", "status": "True"}],
        "other": 1,
    }


def test_a_status_of_kserves_other_modes_is_not_touched() -> None:
    assert withdrawal.inference_service(KSERVE) is None
    assert withdrawal.inference_service({}) is None


def test_a_predictor_is_as_new() -> None:
    served = {"available": True, "activeModelState": "Loaded", "grpcEndpoint": "x", "lastFailureInfo": {}}
    left = withdrawal.predictor(served)
    assert left is not None
    assert left["available"] is False
    assert left["activeModelState"] == "Pending"
    assert left["grpcEndpoint"] == ""
    assert "lastFailureInfo" not in left
    assert withdrawal.predictor(left) is None


async def test_an_object_that_loses_the_annotation_leaves_the_mesh_and_is_not_ready(world: Any) -> None:
    world.mesh.say("m__isvc-", "LOADED")
    await world.create_runtime()
    await world.pods_come_up()
    await world.create_isvc()
    await world.ready()
    await world.change("InferenceService", "m", NO_ANNOTATION)
    left = await world.until("InferenceService", "m", lambda o: "url" not in o["status"])
    assert "conditions" not in left["status"]
    assert "modelStatus" not in left["status"]
    await world.asked(lambda mesh: "m" not in mesh.vmodels)
    await world.events("Withdrawn")


async def test_it_may_lose_the_annotation_while_no_controller_runs(
    idle_world: Any, controller_in: Any
) -> None:
    world = idle_world
    world.mesh.say("m__isvc-", "LOADED")
    await world.create_runtime()
    await world.pods_come_up()
    await world.create_isvc()
    async with controller_in(world):
        await world.ready()
    await world.change("InferenceService", "m", NO_ANNOTATION)
    async with controller_in(world):
        await world.until("InferenceService", "m", lambda o: "url" not in o["status"])


async def test_what_kserve_writes_is_left_alone(world: Any) -> None:
    await world.pods_come_up()
    await world.create_isvc()
    await world.ready()
    await world.change("InferenceService", "m", NO_ANNOTATION)
    await world.until("InferenceService", "m", lambda o: "url" not in o["status"])
    obj = await world.get("InferenceService", "m")
    status = KSERVE | {"conditions": [{"type": "Ready", "status": "True"}]}
    await world.client.replace(INFERENCE_SERVICE, obj | {"status": status}, subresource="status")
    await world.change("InferenceService", "m", {"metadata": {"labels": {"a": "b"}}})
    await world.settled()
    left = await world.get("InferenceService", "m")
    assert left["status"]["url"] == KSERVE["url"]
    assert left["status"]["conditions"][0]["status"] == "True"

"""State and event to state, through the whole controller."""

import base64
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from api.core import NAMESPACE
from api.proto import model_mesh_pb2 as pb
from controller import status as machine
from controller.reconcilers import predictor as reconciler
from controller.runtime.errors import Forbidden
from store.records import MODELS, VMODELS, ModelRecord, VModelRecord

ROOT = Path(__file__).parents[2]
URL = "grpc://modelmesh-serving.modelmesh-serving:8033"
ID = "m__isvc-"
NEW_PATH = {"spec": {"predictor": {"model": {"storage": {"path": "q"}}}}}


def _replicas(count: int) -> Any:
    return lambda obj: obj is not None and obj["spec"]["replicas"] == count


def _exists(obj: Any) -> bool:
    return obj is not None


def _gone(obj: Any) -> bool:
    return obj is None


async def test_the_service_leads_to_the_mesh(world: Any) -> None:
    service = await world.until("Service", "modelmesh-serving", _exists)
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"modelmesh-service": "modelmesh-serving"}
    assert {port["name"]: port["port"] for port in service["spec"]["ports"]} == {
        "grpc": 8033,
        "http": 8008,
        "prometheus": 2112,
    }
    assert "ownerReferences" not in service["metadata"]


async def test_a_runtime_without_models_has_a_deployment_without_pods(world: Any) -> None:
    await world.create_runtime()
    await world.until("Deployment", "modelmesh-serving-mlserver-1.x", _replicas(0))
    config = await world.until("ConfigMap", "tc-config", _exists)
    constraints = json.loads(base64.b64decode(config["binaryData"]["type_constraints"]))
    assert constraints["rt:mlserver-1.x"] == {"required": ["rt:mlserver-1.x"]}


async def test_a_model_brings_its_runtime_up_and_becomes_ready(world: Any) -> None:
    await world.create_runtime()
    await world.create_isvc()
    waiting = await world.ready(status="False", message="Waiting for runtime Pod to become available")
    assert waiting["modelStatus"]["lastFailureInfo"]["reason"] == "RuntimeUnhealthy"
    assert "url" not in waiting
    await world.until("Deployment", "modelmesh-serving-mlserver-1.x", _replicas(2))

    world.mesh.say(ID, "LOADING")
    await world.pods_come_up()
    loading = await world.until(
        "InferenceService",
        "m",
        lambda o: o["status"]["modelStatus"]["states"]["activeModelState"] == "Loading",
    )
    assert loading["status"]["conditions"][1]["status"] == "False"

    world.mesh.say(ID, "LOADED")
    status = await world.ready()
    assert status["url"] == URL
    assert status["components"]["predictor"]["restUrl"] == "http://modelmesh-serving.modelmesh-serving:8008"
    assert status["modelStatus"] == {
        "transitionStatus": "UpToDate",
        "states": {"activeModelState": "Loaded", "targetModelState": ""},
        "copies": {"failedCopies": 0, "totalCopies": 1},
    }
    events = await world.events("WaitingForRuntime", "Registered", "Loading", "Loaded")
    assert Counter(event["reason"] for event in events) == {
        "WaitingForRuntime": 1,
        "Registered": 1,
        "Loading": 1,
        "Loaded": 1,
    }


async def test_what_the_mesh_is_told(world: Any) -> None:
    await world.create_runtime()
    await world.pods_come_up()
    await world.create_isvc("example", storage={"path": "sklearn/mnist-svm.joblib", "key": "localMinIO"})
    await world.ready("example")
    call = world.mesh.calls[0]
    assert (call.vModelId, call.targetModelId) == ("example", "example__isvc-6b2eb0b8bf")
    assert call.modelInfo.type == "mt:sklearn"
    assert call.modelInfo.path == "sklearn/mnist-svm.joblib"
    assert json.loads(call.modelInfo.key) == {
        "storage_key": "localMinIO",
        "model_type": {"name": "sklearn"},
    }
    assert call.owner == "isvc"
    assert call.autoDeleteTargetModel
    assert call.loadNow


async def test_annotations_steer_copies_and_a_wrong_one_is_told(world: Any) -> None:
    world.mesh.say(ID, "LOADED")
    await world.create_runtime()
    await world.pods_come_up()
    await world.create_isvc()
    await world.ready()
    assert world.mesh.calls[-1].HasField("policy")

    annotations = {"modelmesh/min-copies": "2", "modelmesh/pinned": "true"}
    await world.change("InferenceService", "m", {"metadata": {"annotations": annotations}})
    await world.asked(
        lambda mesh: mesh.vmodels["m"].policy.minCopies == 2 and mesh.vmodels["m"].policy.pinned
    )
    assert world.mesh.vmodels["m"].targetModelId.startswith(ID)

    await world.change("InferenceService", "m", {"metadata": {"annotations": {"modelmesh/min-copies": "x"}}})
    obj = await world.until(
        "InferenceService",
        "m",
        lambda o: o["status"]["modelStatus"]["transitionStatus"] == "InvalidSpec",
    )
    failure = obj["status"]["modelStatus"]["lastFailureInfo"]
    assert "modelmesh/min-copies" in failure["message"]
    # What was asked for before goes on.
    assert world.mesh.vmodels["m"].policy.minCopies == 2


async def test_a_settled_model_is_neither_written_nor_loaded_again(world: Any) -> None:
    world.mesh.say(ID, "LOADED")
    await world.create_runtime()
    await world.pods_come_up()
    await world.create_isvc()
    await world.ready()
    before = await world.get("InferenceService", "m")
    for value in ("b", "c"):
        # An object is with one worker at a time: the second call proves that the first round is over.
        calls = len(world.mesh.calls)
        await world.change("InferenceService", "m", {"metadata": {"labels": {"a": value}}})
        await world.asked(lambda mesh, calls=calls: len(mesh.calls) > calls)
        assert not world.mesh.calls[-1].loadNow
    after = await world.get("InferenceService", "m")
    assert after["status"] == before["status"]


async def test_an_unknown_format_fails_without_any_pod_and_recovers(world: Any) -> None:
    await world.create_runtime()
    await world.create_isvc(model_format="onnx")
    status = await world.ready(
        status="False",
        message="No ServingRuntime supports specified model type and/or protocol",
    )
    failure = status["modelStatus"]["lastFailureInfo"]
    assert failure["reason"] == "NoSupportingRuntime"
    assert "format onnx" in failure["message"]
    assert "sklearn" in failure["message"]
    assert status["modelStatus"]["states"]["activeModelState"] == "FailedToLoad"
    await world.events("NoSupportingRuntime")

    patch = {"spec": {"predictor": {"model": {"modelFormat": {"name": "sklearn"}}}}}
    await world.change("InferenceService", "m", patch)
    await world.ready(status="False", message="Waiting for runtime Pod")
    world.mesh.say(ID, "LOADED")
    await world.pods_come_up()
    await world.ready()


async def test_a_runtime_that_is_added_later_is_found(world: Any) -> None:
    await world.create_isvc()
    await world.ready(status="False", message="no runtime is enabled")
    await world.create_runtime()
    await world.ready(status="False", message="Waiting for runtime Pod")


async def test_an_unknown_runtime_name(world: Any) -> None:
    await world.create_runtime()
    await world.create_isvc(runtime="nobody")
    status = await world.ready(status="False", message="Specified runtime name not recognized: nobody")
    assert status["modelStatus"]["lastFailureInfo"]["reason"] == "RuntimeNotRecognized"
    assert "mlserver-1.x" in status["modelStatus"]["lastFailureInfo"]["message"]


async def test_a_failed_load_shows_its_cause_and_recovers(world: Any) -> None:
    world.mesh.say(ID, "LOADING_FAILED", "NOT_FOUND: no object sklearn/absent in bucket b")
    await world.create_runtime()
    await world.pods_come_up()
    await world.create_isvc()
    status = await world.ready(status="False", message="no object sklearn/absent")
    failure = status["modelStatus"]["lastFailureInfo"]
    assert failure["reason"] == "ModelLoadFailed"
    assert failure["location"] == "pod-1"
    assert failure["time"] == "2023-11-14T22:13:20Z"
    assert status["modelStatus"]["copies"] == {"failedCopies": 1, "totalCopies": 1}
    events = await world.events("LoadFailed")
    assert [e["type"] for e in events if e["reason"] == "LoadFailed"] == ["Warning"]

    world.mesh.states.clear()
    world.mesh.say(ID, "LOADED")
    await world.change(
        "InferenceService", "m", {"spec": {"predictor": {"model": {"storage": {"path": "q"}}}}}
    )
    status = await world.ready()
    assert "lastFailureInfo" not in status["modelStatus"]


async def test_an_update_keeps_the_old_model_until_the_new_one_is_loaded(world: Any) -> None:
    world.mesh.say(ID, "LOADED")
    await world.create_runtime()
    await world.pods_come_up()
    await world.create_isvc()
    await world.ready()
    world.mesh.only(world.mesh.vmodels["m"].targetModelId, "LOADED")
    world.mesh.say_otherwise("LOADING")
    await world.change("InferenceService", "m", NEW_PATH)
    moving = await world.until(
        "InferenceService",
        "m",
        lambda o: o["status"]["modelStatus"]["transitionStatus"] == "InProgress",
    )
    assert moving["status"]["modelStatus"]["states"] == {
        "activeModelState": "Loaded",
        "targetModelState": "Loading",
    }
    assert moving["status"]["url"] == URL
    assert "lastFailureInfo" not in moving["status"]["modelStatus"]

    world.mesh.say_otherwise("LOADED")
    await world.until(
        "InferenceService",
        "m",
        lambda o: o["status"]["modelStatus"]["transitionStatus"] == "UpToDate",
    )


async def test_an_update_that_fails_leaves_the_old_model_serving(world: Any) -> None:
    world.mesh.say(ID, "LOADED")
    await world.create_runtime()
    await world.pods_come_up()
    await world.create_isvc()
    await world.ready()
    world.mesh.only(world.mesh.vmodels["m"].targetModelId, "LOADED")
    world.mesh.say_otherwise("LOADING_FAILED", "corrupt file")
    await world.change("InferenceService", "m", NEW_PATH)
    status = await world.ready(message="Serves the previous model; corrupt file")
    assert status["modelStatus"]["transitionStatus"] == "BlockedByFailedLoad"
    assert status["modelStatus"]["states"] == {
        "activeModelState": "Loaded",
        "targetModelState": "FailedToLoad",
    }


async def test_a_contradiction_is_invalid_and_can_be_mended(world: Any) -> None:
    await world.create_runtime()
    await world.create_isvc(storage=None, storageUri="ftp://b/p")
    status = await world.ready(status="False", message="storageUri 'ftp://b/p' must be s3://")
    assert status["modelStatus"]["transitionStatus"] == "InvalidSpec"
    assert status["modelStatus"]["lastFailureInfo"]["reason"] == "InvalidPredictorSpec"
    await world.events("InvalidSpec")
    await world.change(
        "InferenceService",
        "m",
        {"spec": {"predictor": {"model": {"storageUri": "s3://b/p"}}}},
    )
    status = await world.ready(status="False", message="Waiting for runtime Pod")
    assert status["modelStatus"]["transitionStatus"] == "UpToDate"


async def test_a_deleted_model_leaves_the_mesh_and_its_runtime_may_rest(world: Any) -> None:
    await world.configure(scaleToZero={"gracePeriodSeconds": 0})
    world.mesh.say(ID, "LOADED")
    await world.create_runtime()
    await world.pods_come_up()
    await world.create_isvc()
    await world.until("Deployment", "modelmesh-serving-mlserver-1.x", _replicas(2))
    await world.ready()
    await world.delete("InferenceService", "m")
    await world.asked(lambda mesh: not mesh.vmodels)
    await world.until("Deployment", "modelmesh-serving-mlserver-1.x", _replicas(0))


async def test_objects_of_kserve_are_left_alone(world: Any) -> None:
    await world.create_runtime()
    await world.create(
        {
            "kind": "InferenceService",
            "metadata": {"name": "theirs"},
            "spec": {"predictor": {"sklearn": {"storageUri": "s3://b/p"}}},
        },
    )
    await world.create_isvc()
    await world.ready(status="False", message="Waiting for runtime Pod")
    assert "status" not in await world.get("InferenceService", "theirs")


async def test_a_predictor_is_served_the_same(world: Any) -> None:
    world.mesh.say("p__ksp-7702c1b55a", "LOADED")
    await world.create_runtime()
    await world.create(
        {
            "kind": "Predictor",
            "metadata": {"name": "p"},
            "spec": {
                "modelType": {"name": "sklearn"},
                "path": "sklearn/mnist-svm.joblib",
                "storage": {"s3": {"secretKey": "localMinIO"}},
            },
        },
    )
    await world.until(
        "Predictor",
        "p",
        lambda o: o["status"].get("lastFailureInfo", {}).get("reason") == "RuntimeUnhealthy",
    )
    await world.pods_come_up()
    predictor = await world.until("Predictor", "p", lambda o: o["status"]["available"])
    assert predictor["status"]["activeModelState"] == "Loaded"
    assert predictor["status"]["grpcEndpoint"] == URL


async def test_a_predictor_that_contradicts_itself(world: Any) -> None:
    await world.create(
        {
            "kind": "Predictor",
            "metadata": {"name": "p"},
            "spec": {"modelType": {"name": "sklearn"}, "path": "a", "storage": {"path": "b"}},
        },
    )
    predictor = await world.until(
        "Predictor", "p", lambda o: o["status"]["transitionStatus"] == "InvalidSpec"
    )
    assert predictor["status"]["lastFailureInfo"]["modelId"].startswith("p__ksp-")


async def test_two_kinds_cannot_share_a_name(world: Any) -> None:
    world.mesh.say(ID, "LOADED")
    await world.create_runtime()
    await world.pods_come_up()
    await world.create_isvc()
    await world.ready()
    await world.create(
        {
            "kind": "Predictor",
            "metadata": {"name": "m"},
            "spec": {"modelType": {"name": "sklearn"}, "path": "a", "storage": {"s3": {"secretKey": "k"}}},
        },
    )
    predictor = await world.until("Predictor", "m", lambda o: "lastFailureInfo" in o["status"])
    assert "already serves under the name m" in predictor["status"]["lastFailureInfo"]["message"]
    assert not predictor["status"]["available"]


async def test_a_name_that_becomes_free_is_taken_without_anyones_help(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "_NAME_TAKEN_RETRY_S", 0.05)
    world.mesh.say("m__", "LOADED")
    world.mesh.vmodels["m"] = pb.SetVModelRequest(vModelId="m", targetModelId="m__ksp-0", owner="ksp")
    await world.create_runtime()
    await world.pods_come_up()
    await world.create_isvc()
    await world.ready(status="False", message="already serves under the name m")
    # After so many refusals, the back-off of errors would make the next one wait for twenty seconds.
    await world.asked(lambda mesh: len(mesh.calls) > 12)
    del world.mesh.vmodels["m"]
    await world.ready()


async def test_a_refused_call_is_told_and_tried_again(world: Any) -> None:
    world.mesh.say(ID, "LOADED")
    world.mesh.refusal = (grpc.StatusCode.INTERNAL, "not now")
    await world.create_runtime()
    await world.pods_come_up()
    await world.create_isvc()
    await world.asked(lambda mesh: len(mesh.calls) > 1)
    events = await world.events("RegistrationRefused")
    assert "INTERNAL: not now" in events[0]["message"]
    world.mesh.refusal = None
    await world.ready()


async def test_a_model_whose_pods_vanish_waits_for_new_ones(world: Any) -> None:
    world.mesh.say(ID, "LOADED")
    await world.create_runtime()
    await world.pods_come_up()
    await world.create_isvc()
    await world.ready()
    await world.pods_go()
    status = await world.ready(message="Waiting for runtime Pod to become available: no pod of mlserver-1.x")
    assert status["modelStatus"]["lastFailureInfo"]["reason"] == "RuntimeUnhealthy"
    await world.pods_come_up()
    await world.until(
        "InferenceService",
        "m",
        lambda o: "lastFailureInfo" not in o["status"]["modelStatus"],
    )


async def test_a_model_that_left_memory_with_its_pods_is_loaded_by_new_ones(world: Any) -> None:
    world.mesh.say(ID, "LOADED")
    await world.create_runtime()
    await world.pods_come_up()
    await world.create_isvc()
    await world.ready()
    await world.pods_go()
    world.mesh.only(ID, "NOT_LOADED")
    await world.until(
        "InferenceService",
        "m",
        lambda o: "lastFailureInfo" in o["status"]["modelStatus"],
    )
    world.mesh.calls.clear()
    await world.pods_come_up()
    await world.asked(lambda mesh: any(call.loadNow for call in mesh.calls))
    world.mesh.only(ID, "LOADED")
    await world.ready(message="loaded and serves")


async def test_a_standby_model_stays_so_while_pods_restart(world: Any) -> None:
    world.mesh.say(ID, "NOT_LOADED")
    await world.create_runtime()
    await world.pods_come_up()
    await world.create_isvc()
    await world.ready(message="first request loads it")
    await world.settled()
    before = await world.get("InferenceService", "m")
    await world.pods_go()
    await world.create_isvc("witness")
    await world.ready("witness", status="False", message="Waiting for runtime Pod")
    await world.settled()
    assert await world.get("InferenceService", "m") == before


@pytest.mark.parametrize("state", ["LOADED", "NOT_LOADED"])
async def test_a_model_that_lost_its_runtime_and_all_pods_is_not_ready(world: Any, state: str) -> None:
    world.mesh.say(ID, state)
    await world.create_runtime()
    await world.pods_come_up()
    await world.create_isvc()
    await world.ready()
    await world.delete("ServingRuntime", "mlserver-1.x")
    await world.settled()
    await world.pods_go()
    status = await world.ready(status="False", message="no runtime is enabled")
    assert status["modelStatus"]["lastFailureInfo"]["reason"] == "NoSupportingRuntime"
    assert "url" not in status


async def test_a_standby_model_that_lost_its_runtime_is_asked_about_until_the_mesh_knows(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "NO_POD_POLL_S", 0.05)
    world.mesh.say(ID, "NOT_LOADED")
    await world.create_runtime()
    await world.pods_come_up()
    await world.create_isvc()
    await world.ready(message="first request loads it")
    await world.settled()
    world.mesh.calls.clear()
    await world.delete("ServingRuntime", "mlserver-1.x")
    # Its pods are still there, and other runtimes' stay: no event tells of the end.
    await world.asked(lambda mesh: len(mesh.calls) > 1)
    lost = "There are no running instances that meet the label requirements of type mt:sklearn: [mt:sklearn]"
    world.mesh.say(ID, "LOADING_FAILED", lost)
    status = await world.ready(status="False", message="no runtime is enabled")
    assert status["modelStatus"]["lastFailureInfo"]["reason"] == "NoSupportingRuntime"
    await world.settled()


async def test_the_registry_wakes_the_controller(world: Any) -> None:
    world.mesh.say(ID, "NOT_LOADED")
    await world.create_etcd_secret()
    await world.create_runtime()
    await world.pods_come_up()
    await world.create_isvc()
    await world.ready(message="first request loads it")
    model_id = world.mesh.vmodels["m"].targetModelId
    world.mesh.say(ID, "LOADED")
    await world.table(MODELS, "models").write(model_id, ModelRecord(type="mt:sklearn"))
    # Standby is not polled: only the registry can have told.
    await world.ready(message="loaded and serves")

    world.backend.set_available(False)
    world.mesh.states.clear()
    world.mesh.say(ID, "NOT_LOADED")
    world.backend.set_available(True)
    await world.table(VMODELS, "vmodels").write("m", VModelRecord("isvc", model_id, model_id))
    await world.ready(message="first request loads it")


async def test_what_was_deleted_while_no_controller_ran_is_cleaned_up(
    idle_world: Any,
    controller_in: Any,
) -> None:
    world = idle_world
    await world.create_etcd_secret()
    await world.pods_come_up()
    orphan = "gone__isvc-6b2eb0b8bf"
    await world.table(VMODELS, "vmodels").write("gone", VModelRecord("isvc", orphan, orphan))
    async with controller_in(world):
        await world.asked(lambda mesh: any(call.vModelId == "gone" for call in mesh.calls))
    assert world.mesh.calls[0].owner == "isvc"


async def test_configuration_takes_effect_and_a_bad_one_does_not(world: Any) -> None:
    await world.create_runtime()
    await world.create_isvc()
    await world.until("Deployment", "modelmesh-serving-mlserver-1.x", _replicas(2))
    await world.configure(podsPerRuntime=1, restProxy={"enabled": False})
    await world.until("Deployment", "modelmesh-serving-mlserver-1.x", _replicas(1))
    await world.until(
        "Service",
        "modelmesh-serving",
        lambda o: {port["name"] for port in o["spec"]["ports"]} == {"grpc", "prometheus"},
    )
    await world.configure(podsPerRuntime="many")
    events = await world.events("InvalidConfiguration", kind="ConfigMap")
    assert "podsPerRuntime" in events[0]["message"]
    await world.create_isvc("other")
    await world.ready("other", status="False")
    deployment = await world.get("Deployment", "modelmesh-serving-mlserver-1.x")
    assert deployment["spec"]["replicas"] == 1


async def test_the_services_name_may_change(world: Any) -> None:
    await world.until("Service", "modelmesh-serving", _exists)
    await world.configure(inferenceServiceName="other", headlessService=False)
    service = await world.until("Service", "other", _exists)
    assert service["spec"].get("clusterIP") != "None"
    await world.until("Service", "modelmesh-serving", _gone)


async def test_the_old_service_stays_until_the_new_one_is_there(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.until("Service", "modelmesh-serving", _exists)
    create, refused = world.client.create, []

    async def refuse(resource: Any, obj: dict[str, Any]) -> Any:
        if obj["metadata"]["name"] != "other":
            return await create(resource, obj)
        refused.append(obj)
        raise Forbidden("no more Services in this namespace")

    monkeypatch.setattr(world.client, "create", refuse)
    await world.configure(inferenceServiceName="other")
    await world.asked(lambda _: len(refused) > 1)
    assert await world.get("Service", "modelmesh-serving") is not None


async def test_deployments_follow_the_services_name(world: Any) -> None:
    await world.create_runtime()
    await world.until("Deployment", "modelmesh-serving-mlserver-1.x", _exists)
    await world.configure(inferenceServiceName="other")
    await world.until("Deployment", "other-mlserver-1.x", _exists)
    await world.until("Deployment", "modelmesh-serving-mlserver-1.x", _gone)


async def test_a_service_turns_headless_by_being_made_anew(world: Any) -> None:
    await world.configure(headlessService=False)
    await world.until("Service", "modelmesh-serving", lambda o: o and o["spec"].get("clusterIP") != "None")
    await world.configure(headlessService=True)
    await world.until("Service", "modelmesh-serving", lambda o: o and o["spec"].get("clusterIP") == "None")


async def test_a_disabled_runtime_loses_its_deployment_and_its_models_fail(world: Any) -> None:
    await world.create_runtime()
    await world.create_isvc()
    await world.until("Deployment", "modelmesh-serving-mlserver-1.x", _replicas(2))
    await world.change("ServingRuntime", "mlserver-1.x", {"spec": {"disabled": True}})
    await world.until("Deployment", "modelmesh-serving-mlserver-1.x", _gone)
    await world.ready(status="False", message="no runtime is enabled")


async def test_an_invalid_runtime_is_reported_on_itself(world: Any) -> None:
    await world.create_runtime(builtInAdapter={"serverType": "nobody"})
    events = await world.events("InvalidSpec", kind="ServingRuntime")
    assert "serverType 'nobody'" in events[0]["message"]
    assert await world.get("Deployment", "modelmesh-serving-mlserver-1.x") is None


async def test_a_deployment_that_the_api_server_refuses_is_reported_on_its_runtime(world: Any) -> None:
    await world.create_runtime(labels={"name": "not what the selector says"})
    events = await world.events("InvalidSpec", kind="ServingRuntime")
    assert "`selector` does not match" in events[0]["message"]
    assert await world.get("Deployment", "modelmesh-serving-mlserver-1.x") is None


async def test_a_cluster_runtime_that_is_no_longer_multi_model_loses_its_deployment(world: Any) -> None:
    await world.create_runtime()
    spec = (await world.get("ServingRuntime", "mlserver-1.x"))["spec"]
    await world.create({"kind": "ClusterServingRuntime", "metadata": {"name": "wide"}, "spec": spec})
    await world.until("Deployment", "modelmesh-serving-wide", _exists)
    await world.change("ClusterServingRuntime", "wide", {"spec": {"multiModel": False}})
    await world.until("Deployment", "modelmesh-serving-wide", _gone)


async def test_a_namespaced_runtime_hides_the_clusters(world: Any) -> None:
    await world.create_runtime()
    runtime = await world.get("ServingRuntime", "mlserver-1.x")
    await world.create(
        {
            "kind": "ClusterServingRuntime",
            "metadata": {"name": "mlserver-1.x"},
            "spec": runtime["spec"] | {"replicas": 7},
        },
    )
    await world.create(
        {
            "kind": "ClusterServingRuntime",
            "metadata": {"name": "other"},
            "spec": runtime["spec"] | {"replicas": 7},
        },
    )
    await world.create_isvc()
    await world.until("Deployment", "modelmesh-serving-other", _replicas(7))
    await world.until("Deployment", "modelmesh-serving-mlserver-1.x", _replicas(2))
    owner = (await world.get("Deployment", "modelmesh-serving-other"))["metadata"]["ownerReferences"][0]
    assert owner["kind"] == "ClusterServingRuntime"


async def test_what_others_changed_in_a_deployment_is_set_back(world: Any) -> None:
    await world.create_runtime()
    await world.create_isvc()
    name = "modelmesh-serving-mlserver-1.x"
    await world.until("Deployment", name, _replicas(2))
    await world.change("Deployment", name, {"spec": {"replicas": 9, "minReadySeconds": 3}})
    deployment = await world.until("Deployment", name, _replicas(2))
    assert deployment["spec"]["minReadySeconds"] == 3


def _labelled(value: str | None) -> dict[str, Any]:
    return {"metadata": {"labels": {"modelmesh-enabled": value}}}


async def test_in_cluster_scope_labelled_namespaces_are_served(idle_world: Any, controller_in: Any) -> None:
    world = idle_world
    world.environment = replace(world.environment, namespace_scope=False)
    await world.client.create(NAMESPACE, {"metadata": {"name": "user"}})
    runtime = yaml.safe_load((ROOT / "runtimes" / "mlserver-1.x.yaml").read_text())
    await world.create(runtime | {"kind": "ClusterServingRuntime"})
    async with controller_in(world):
        await world.until("Deployment", "modelmesh-serving-mlserver-1.x", _exists)
        assert await world.get("Service", "modelmesh-serving", "user") is None

        await world.client.patch(NAMESPACE, "user", "", _labelled("true"))
        service = await world.until("Service", "modelmesh-serving", _exists, "user")
        assert service["metadata"]["ownerReferences"][0]["kind"] == "Namespace"
        await world.until("Deployment", "modelmesh-serving-mlserver-1.x", _exists, "user")
        await world.until("ConfigMap", "tc-config", _exists, "user")

        await world.client.patch(NAMESPACE, "user", "", _labelled(None))
        await world.until("Service", "modelmesh-serving", _gone, "user")
        await world.until("ConfigMap", "tc-config", _gone, "user")
        await world.until("Deployment", "modelmesh-serving-mlserver-1.x", _gone, "user")

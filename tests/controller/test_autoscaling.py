"""Autoscalers, from a runtime's annotations to the Deployment that they move."""

from typing import Any

import pytest

from api.v1alpha1 import ServingRuntimeSpec
from controller.autoscaling import Autoscaling, autoscaling
from controller.errors import InvalidRuntimeError

PREFIX = "serving.kserve.io/"
NAME = "modelmesh-serving-mlserver-1.x"
HPA = {f"{PREFIX}autoscalerClass": "hpa", f"{PREFIX}min-scale": "2", f"{PREFIX}max-scale": "5"}
KIND = "HorizontalPodAutoscaler"


def _replicas(count: int) -> Any:
    return lambda obj: obj is not None and obj["spec"]["replicas"] == count


def _exists(obj: Any) -> bool:
    return obj is not None


def _gone(obj: Any) -> bool:
    return obj is None


def _read(annotations: dict[str, str], **spec: Any) -> Autoscaling | None:
    annotations = {f"{PREFIX}{key}": value for key, value in annotations.items()}
    return autoscaling(annotations, ServingRuntimeSpec.parse({"containers": [], "multiModel": True} | spec))


@pytest.mark.parametrize("annotations", [{}, {"autoscalerClass": "none"}, {"min-scale": "3"}])
def test_without_the_class_there_is_none(annotations: dict[str, str]) -> None:
    assert _read(annotations) is None


def test_defaults_and_values() -> None:
    assert _read({"autoscalerClass": "hpa"}) == Autoscaling(1, 1, "cpu", 80)
    given = {"min-scale": "2", "max-scale": "5", "metrics": "memory", "targetUtilizationPercentage": "60"}
    assert _read({"autoscalerClass": "hpa"} | given) == Autoscaling(2, 5, "memory", 60)


def test_what_cannot_be_used_is_named() -> None:
    with pytest.raises(InvalidRuntimeError, match=r"autoscalerClass.*targetUtilizationPercentage"):
        _read({"autoscalerClass": "keda", "targetUtilizationPercentage": "0"})
    with pytest.raises(InvalidRuntimeError, match=r"min-scale.*max-scale"):
        _read({"autoscalerClass": "hpa", "min-scale": "2"})


async def test_a_runtime_gets_its_autoscaler_with_the_first_model(world: Any) -> None:
    await world.create_runtime(annotations=HPA | {"note": "a"})
    await world.until("Deployment", NAME, _replicas(0))
    assert await world.get(KIND, NAME) is None
    await world.create_isvc()
    await world.until("Deployment", NAME, _replicas(2))
    scaler = await world.until(KIND, NAME, _exists)
    assert scaler["spec"] == {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME},
        "minReplicas": 2,
        "maxReplicas": 5,
        "metrics": [
            {
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
            },
        ],
    }
    metadata = scaler["metadata"]
    assert metadata["ownerReferences"][0]["kind"] == "ServingRuntime"
    assert metadata["annotations"]["note"] == "a"
    assert (
        metadata["labels"].items()
        >= {
            "app.kubernetes.io/managed-by": "modelmesh-controller",
            "serving.kserve.io/inferenceservice": "mlserver-1.x",
            "component": "predictor",
        }.items()
    )


async def test_with_scale_to_zero_off_it_comes_with_the_deployment(world: Any) -> None:
    await world.configure(scaleToZero={"enabled": False})
    await world.create_runtime(annotations=HPA)
    await world.until("Deployment", NAME, _replicas(2))
    await world.until(KIND, NAME, _exists)


async def test_replicas_are_left_to_the_autoscaler(world: Any) -> None:
    await world.create_runtime(annotations=HPA)
    await world.create_isvc()
    await world.until(KIND, NAME, _exists)
    await world.change("Deployment", NAME, {"spec": {"replicas": 4}})
    await world.change("ServingRuntime", "mlserver-1.x", {"spec": {"annotations": {"a": "b"}}})
    deployment = await world.until(
        "Deployment", NAME, lambda o: o["spec"]["template"]["metadata"]["annotations"].get("a") == "b"
    )
    assert deployment["spec"]["replicas"] == 4


async def test_it_follows_the_annotations_and_goes_with_them(world: Any) -> None:
    await world.configure(podsPerRuntime=3)
    await world.create_runtime(annotations=HPA)
    await world.create_isvc()
    await world.until(KIND, NAME, _exists)
    change = {f"{PREFIX}max-scale": "9", f"{PREFIX}metrics": "memory"}
    await world.change("ServingRuntime", "mlserver-1.x", {"metadata": {"annotations": change}})
    scaler = await world.until(KIND, NAME, lambda o: o["spec"]["maxReplicas"] == 9)
    assert scaler["spec"]["metrics"][0]["resource"]["name"] == "memory"
    none = {f"{PREFIX}autoscalerClass": "none"}
    await world.change("ServingRuntime", "mlserver-1.x", {"metadata": {"annotations": none}})
    await world.until(KIND, NAME, _gone)
    await world.until("Deployment", NAME, _replicas(3))


async def test_what_others_changed_in_an_autoscaler_is_set_back(world: Any) -> None:
    await world.create_runtime(annotations=HPA)
    await world.create_isvc()
    await world.until(KIND, NAME, _exists)
    await world.change(KIND, NAME, {"spec": {"maxReplicas": 50}})
    await world.until(KIND, NAME, lambda o: o["spec"]["maxReplicas"] == 5)
    await world.delete(KIND, NAME)
    await world.until(KIND, NAME, _exists)


async def test_it_goes_when_the_pods_go(world: Any) -> None:
    await world.configure(scaleToZero={"gracePeriodSeconds": 0})
    await world.create_runtime(annotations=HPA)
    await world.create_isvc()
    await world.until(KIND, NAME, _exists)
    await world.delete("InferenceService", "m")
    await world.until(KIND, NAME, _gone)
    await world.until("Deployment", NAME, _replicas(0))
    await world.create_isvc()
    await world.until("Deployment", NAME, _replicas(2))
    await world.until(KIND, NAME, _exists)


async def test_a_disabled_runtime_loses_it(world: Any) -> None:
    await world.create_runtime(annotations=HPA)
    await world.create_isvc()
    await world.until(KIND, NAME, _exists)
    await world.change("ServingRuntime", "mlserver-1.x", {"spec": {"disabled": True}})
    await world.until(KIND, NAME, _gone)
    await world.until("Deployment", NAME, _gone)


async def test_annotations_that_cannot_be_used_leave_the_deployment_as_it_is(world: Any) -> None:
    await world.create_runtime()
    await world.create_isvc()
    await world.until("Deployment", NAME, _replicas(2))
    wrong = {f"{PREFIX}autoscalerClass": "keda"}
    await world.change(
        "ServingRuntime", "mlserver-1.x", {"metadata": {"annotations": wrong}, "spec": {"replicas": 7}}
    )
    events = await world.events("InvalidSpec", kind="ServingRuntime")
    assert "autoscalerClass" in events[0]["message"]
    assert (await world.get("Deployment", NAME))["spec"]["replicas"] == 2

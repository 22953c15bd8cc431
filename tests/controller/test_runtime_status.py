"""The status of runtimes: the pure functions, and the reconciler in a whole controller."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from api.core import Deployment
from controller import runtime_status
from controller.reconcilers.runtime_status import RuntimeStatusReconciler
from controller.runtime.reconcile import Request
from controller.runtime_status import Local, Problems, Stage, Summary
from store.records import INSTANCES, InstanceRecord, Resources
from tests.controller.conftest import NAMESPACE, ROOT

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MIB = 1024**2


def _deployment(desired: int | None, ready: int = 0, *conditions: dict[str, Any]) -> Deployment:
    raw = {
        "metadata": {"name": "d", "namespace": "ns"},
        "spec": {} if desired is None else {"replicas": desired},
        "status": {"readyReplicas": ready, "conditions": list(conditions)},
    }
    return Deployment.parse(raw)


def _rollout(*conditions: dict[str, Any], generation: int = 4) -> Deployment:
    """A new template whose two pods do not become ready beside the two old ones, or one not looked at yet."""
    replicas = (
        {"replicas": 4, "updatedReplicas": 2} if generation == 4 else {"replicas": 2, "updatedReplicas": 2}
    )
    raw = _deployment(2, 2, *conditions).dump()
    raw["metadata"]["generation"] = generation
    raw["status"] |= {"observedGeneration": 4} | replicas
    return Deployment.parse(raw)


def _record(runtime: str, count: int, used: int, capacity: int) -> InstanceRecord:
    return InstanceRecord(
        count=count,
        used=Resources(used * MIB),
        capacity=Resources(capacity * MIB),
        labels=("mt:x", f"rt:{runtime}"),
    )


QUOTA = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
STUCK = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
FINE = {"type": "Progressing", "status": "True", "message": "fine"}


@pytest.mark.parametrize(
    ("local", "problem", "stage", "message"),
    [
        (Local("ns"), "wrong", Stage.INVALID, "wrong"),
        (Local("ns", _deployment(1, 1), "refused"), "wrong", Stage.INVALID, "wrong"),
        (Local("ns", None, "refused"), "", Stage.REFUSED, "refused"),
        (Local("ns"), "", Stage.DEPLOYING, "Its Deployment is being made"),
        (Local("ns", _deployment(0)), "", Stage.SCALED_TO_ZERO, "no pods while no model needs it"),
        (Local("ns", _deployment(2)), "", Stage.STARTING, "0 of 2 pods are ready: see `kubectl describe"),
        (Local("ns", _deployment(2, 1)), "", Stage.SOME_READY, "1 of 2 pods are ready: see `kubectl"),
        (Local("ns", _deployment(2, 1, FINE)), "", Stage.SOME_READY, "1 of 2 pods are ready: see `kubectl"),
        (Local("ns", _deployment(2, 0, QUOTA)), "", Stage.FAILED, "pods are ready: exceeded quota (see"),
        (Local("ns", _deployment(2, 0, STUCK)), "", Stage.FAILED, "ProgressDeadlineExceeded (see"),
        (Local("ns", _deployment(2, 2, QUOTA)), "", Stage.READY, "2 of 2 pods are ready"),
        (
            Local("ns", _rollout()),
            "",
            Stage.ROLLING_OUT,
            "2 of 2 pods are ready, older ones are not replaced yet: see",
        ),
        (
            Local("ns", _rollout(STUCK)),
            "",
            Stage.ROLLING_OUT,
            "not replaced yet: ProgressDeadlineExceeded (see",
        ),
        (Local("ns", _rollout(generation=5)), "", Stage.ROLLING_OUT, "not replaced yet"),
        (Local("ns", _deployment(1, 2)), "", Stage.READY, "1 of 1 pods are ready"),
        (Local("ns", _deployment(None, 1)), "", Stage.READY, "1 of 1 pods are ready"),
    ],
)
def test_stages(local: Local, problem: str, stage: Stage, message: str) -> None:
    summary = runtime_status.summarize([local], problem, cluster=False)
    assert summary.stage is stage
    assert message in summary.message


def test_models_and_memory_are_those_of_its_pods() -> None:
    records = [_record("r", 2, 10, 100), _record("other", 5, 50, 500), _record("r", 1, 5, 100)]
    local = Local("ns", _deployment(2, 2), instances=runtime_status.instances_of("r", records))
    summary = runtime_status.summarize([local], "", cluster=False)
    assert (summary.models, summary.memory) == (3, (200 * MIB, 15 * MIB))


def test_models_and_memory_are_not_guessed() -> None:
    known = Local("a", _deployment(1, 1), instances=[_record("r", 2, 10, 100)])
    summary = runtime_status.summarize([known, Local("b", _deployment(1, 1))], "", cluster=True)
    assert (summary.models, summary.memory) == (None, None)


def test_a_clusters_runtime_shows_the_namespace_to_look_at() -> None:
    places = [Local("a", _deployment(2, 2)), Local("b", _deployment(2, 0)), Local("c", _deployment(0))]
    summary = runtime_status.summarize(places, "", cluster=True)
    assert (summary.desired, summary.ready, summary.stage) == (4, 2, Stage.STARTING)
    assert summary.message.startswith("Namespace b: 0 of 2 pods are ready")


def test_a_clusters_runtime_that_rests_in_one_namespace_is_ready() -> None:
    places = [Local("a", _deployment(2, 2)), Local("c", _deployment(0))]
    summary = runtime_status.summarize(places, "", cluster=True)
    assert (summary.stage, summary.message) == (Stage.READY, "2 of 2 pods are ready")


@pytest.mark.parametrize(
    ("problem", "stage"), [("", None), ("wrong", Stage.INVALID)], ids=["sound", "invalid"]
)
def test_a_runtime_that_counts_nowhere(problem: str, stage: Stage | None) -> None:
    assert runtime_status.summarize([], problem, cluster=True).stage is stage


def test_fields_of_the_status() -> None:
    summary = Summary(2, 1, 3, (200 * MIB, 0), Stage.SOME_READY, "some are ready")
    assert runtime_status.fields(summary, {}, 4, NOW) == {
        "observedGeneration": 4,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "SomePodsReady",
                "message": "some are ready",
                "lastTransitionTime": "2026-01-02T03:04:05Z",
            }
        ],
        "pods": {"desired": 2, "ready": 1},
        "models": 3,
        "memory": {"capacity": "200Mi", "used": "0"},
    }


def test_the_transition_time_moves_only_with_the_conditions_status() -> None:
    starting = Summary(stage=Stage.STARTING, message="a")
    before = runtime_status.fields(starting, {}, 1, NOW)
    later = NOW + timedelta(hours=1)
    failed = runtime_status.fields(Summary(stage=Stage.FAILED, message="b"), before, 1, later)
    assert failed["conditions"][0]["lastTransitionTime"] == "2026-01-02T03:04:05Z"
    assert failed["conditions"][0]["reason"] == "PodsFailed"
    ready = runtime_status.fields(Summary(stage=Stage.READY, message="c"), failed, 1, later)
    assert ready["conditions"][0]["lastTransitionTime"] == "2026-01-02T04:04:05Z"


def test_conditions_and_fields_of_others_stay() -> None:
    foreign = {"type": "Audited", "status": "True"}
    before = {"conditions": [foreign], "notes": "n"}
    after = runtime_status.fields(Summary(stage=Stage.READY), before, 1, NOW)
    assert after["conditions"][0] == foreign
    assert after["notes"] == "n"
    assert runtime_status.cleared(after) == before


def test_a_disabled_runtime_has_no_condition_ready() -> None:
    before = runtime_status.fields(Summary(stage=Stage.READY, models=1, memory=(1, 1)), {}, 1, NOW)
    after = runtime_status.fields(Summary(models=0, memory=(0, 0)), before, 2, NOW)
    assert after == {
        "observedGeneration": 2,
        "conditions": [],
        "pods": {"desired": 0, "ready": 0},
        "models": 0,
        "memory": {"capacity": "0", "used": "0"},
    }


def test_the_last_known_numbers_stay_while_the_registry_cannot_be_read() -> None:
    before = runtime_status.fields(Summary(stage=Stage.READY, models=1, memory=(MIB, MIB)), {}, 1, NOW)
    assert runtime_status.fields(Summary(stage=Stage.READY), before, 1, NOW) == before


def test_problems_tell_when_they_change() -> None:
    told: list[Request] = []
    problems = Problems(told.append)
    runtime = Request("ns", "r")
    problems.pop(runtime, None)
    problems[runtime] = "a"
    problems[runtime] = "a"
    problems[runtime] = "b"
    assert problems.get(runtime) == "b"
    assert problems.pop(runtime, None) == "b"
    assert told == [runtime] * 4
    assert problems.judged == {runtime}


# In a whole controller.


def _ready(status: str, reason: str) -> Callable[[Any], bool]:
    def condition(obj: Any) -> bool:
        found = (((obj or {}).get("status") or {}).get("conditions") or [{}])[0]
        return (found.get("status"), found.get("reason")) == (status, reason)

    return condition


NAME = "mlserver-1.x"


async def _pods(world: Any, ready: int, name: str = NAME) -> None:
    deployment = await world.get("Deployment", f"modelmesh-serving-{name}")
    deployment["status"] = {"replicas": ready, "updatedReplicas": ready, "readyReplicas": ready}
    await world.client.replace(Deployment.RESOURCE, deployment, subresource="status")


async def test_a_runtime_tells_of_its_life(world: Any) -> None:
    await world.create_runtime()
    rests = await world.until("ServingRuntime", NAME, _ready("True", "ScaledToZero"))
    assert rests["status"]["observedGeneration"] == 1
    await world.create_isvc()
    await world.until("ServingRuntime", NAME, _ready("False", "PodsStarting"))
    await _pods(world, 2)
    ready = await world.until("ServingRuntime", NAME, _ready("True", "PodsReady"))
    assert ready["status"]["pods"] == {"desired": 2, "ready": 2}
    assert "models" not in ready["status"]
    await world.change("ServingRuntime", NAME, {"spec": {"disabled": True}})
    await world.until("ServingRuntime", NAME, lambda o: o["status"]["conditions"] == [])
    await world.change("ServingRuntime", NAME, {"spec": {"disabled": False, "multiModel": False}})
    await world.until("ServingRuntime", NAME, lambda o: not o.get("status"))


async def test_a_runtime_tells_what_its_pods_hold(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.reconcilers.runtime_status._PAUSE_S", 0.1)
    await world.create_etcd_secret()
    await world.create_runtime()
    instances = world.table(INSTANCES, "instances")
    await instances.start()
    assert await instances.write("pod-1", _record(NAME, 3, 120, 1024))
    seen = await world.until("ServingRuntime", NAME, lambda o: (o.get("status") or {}).get("models") == 3)
    assert seen["status"]["memory"] == {"capacity": "1024Mi", "used": "120Mi"}


def test_changes_of_models_alone_are_written_with_pauses() -> None:
    time = 100.0
    anything: Any = None
    reconciler = RuntimeStatusReconciler(*[anything] * 9, clock=lambda: time)
    runtime = Request("ns", "r")
    one = {"pods": {"ready": 1}, "models": 1, "memory": {"used": "1Mi"}}
    two = one | {"models": 2}
    assert reconciler._pause(runtime, {"pods": {"ready": 1}}, one) == 0
    reconciler._written[runtime] = time
    time += 4
    assert reconciler._pause(runtime, one, two) == 6
    assert reconciler._pause(runtime, one, two | {"pods": {"ready": 2}}) == 0
    time += 6
    assert reconciler._pause(runtime, one, two) == 0


async def test_a_wrong_runtime_says_what_to_do_and_so_does_a_refused_one(world: Any) -> None:
    await world.create_runtime(grpcEndpoint="nowhere")
    wrong = await world.until("ServingRuntime", NAME, _ready("False", "InvalidSpec"))
    assert wrong["status"]["conditions"][0]["message"].startswith(
        "spec.grpcEndpoint: must be port:NUMBER (1 to 65535) or unix:PATH"
    )
    await world.change(
        "ServingRuntime", NAME, {"spec": {"grpcEndpoint": "port:8085", "labels": {"name": "x"}}}
    )
    refused = await world.until("ServingRuntime", NAME, _ready("False", "NotDeployed"))
    assert "`selector` does not match" in refused["status"]["conditions"][0]["message"]
    await world.change("ServingRuntime", NAME, {"spec": {"labels": None}})
    await world.until("ServingRuntime", NAME, _ready("True", "ScaledToZero"))


async def test_a_restarted_controller_writes_no_status(idle_world: Any, controller_in: Any) -> None:
    world = idle_world
    await world.create_etcd_secret()
    await world.create_runtime()
    await world.create({"kind": "ServingRuntime", "metadata": {"name": "refused"}, "spec": _refused_spec()})
    async with controller_in(world):
        await world.until("ServingRuntime", NAME, lambda o: (o.get("status") or {}).get("models") == 0)
        await world.until("ServingRuntime", "refused", _ready("False", "NotDeployed"))
        await world.until("ServingRuntime", "refused", lambda o: o["status"].get("models") == 0)
    before = await world.all("ServingRuntime")
    async with controller_in(world) as assembly:
        places = {Request(NAMESPACE, NAME), Request(NAMESPACE, "refused")}

        async def looked_at() -> bool:
            return assembly._problems.judged >= places and assembly._registries.instances(NAMESPACE) == []

        await world.eventually(looked_at)
        # What woke the status of the others by now is ahead of this one.
        await world.create(
            {
                "kind": "ServingRuntime",
                "metadata": {"name": "last"},
                "spec": _refused_spec() | {"disabled": True},
            }
        )
        await world.until("ServingRuntime", "last", lambda o: bool(o.get("status")))
        after = await world.all("ServingRuntime")
        assert [runtime for runtime in after if runtime["metadata"]["name"] != "last"] == before


def _refused_spec() -> dict[str, Any]:
    raw = yaml.safe_load((ROOT / "runtimes" / "mlserver-1.x.yaml").read_text())
    return raw["spec"] | {"labels": {"name": "x"}}


async def test_wrong_annotations_are_told(world: Any) -> None:
    raw = yaml.safe_load((ROOT / "runtimes" / "mlserver-1.x.yaml").read_text())
    raw["metadata"]["annotations"] = {"serving.kserve.io/autoscalerClass": "keda"}
    await world.create(raw)
    wrong = await world.until("ServingRuntime", NAME, _ready("False", "InvalidSpec"))
    assert "must be hpa or none" in wrong["status"]["conditions"][0]["message"]


async def test_a_clusters_runtime_shows_its_pods(world: Any) -> None:
    raw = yaml.safe_load((ROOT / "runtimes" / "mlserver-1.x.yaml").read_text())
    await world.create({"kind": "ClusterServingRuntime", "metadata": {"name": "wide"}, "spec": raw["spec"]})
    await world.create_isvc()
    await world.until("ClusterServingRuntime", "wide", _ready("False", "PodsStarting"))
    await _pods(world, 2, "wide")
    seen = await world.until("ClusterServingRuntime", "wide", _ready("True", "PodsReady"))
    assert seen["status"]["pods"] == {"desired": 2, "ready": 2}
    await world.create(raw | {"metadata": {"name": "wide", "namespace": NAMESPACE}})
    hidden = await world.until(
        "ClusterServingRuntime", "wide", lambda o: o["status"]["pods"] == {"desired": 0, "ready": 0}
    )
    assert hidden["status"]["conditions"] == []

"""What the controller's benchmark counts, on small inputs whose answers are known."""

import json
from pathlib import Path
from typing import Any

import pytest

from api.core import CONFIG_MAP, NAMESPACE
from bench.control_plane import OWN_NAMESPACE, Write, control_plane, named, writes
from bench.controller import until
from bench.observed import LOADED, STANDBY, STATUS, Happened, Shown, delays, status_writes
from store.records import ModelRecord
from store.table import Entry

MODEL_ID = "digits__isvc-0123456789"


def event(verb: str, resource: str, name: str, **more: Any) -> str:
    """A line of an audit log."""
    resource, _, subresource = resource.partition("/")
    target = {"resource": resource, "name": name} | ({"subresource": subresource} if subresource else {})
    return json.dumps({"stage": "ResponseComplete", "verb": verb, "objectRef": target} | more)


def isvc(state: str, ready: str = "True") -> dict[str, Any]:
    return {
        "metadata": {"name": "digits"},
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "modelStatus": {"states": {"activeModelState": state}},
        },
    }


def record(*loaded: str) -> Entry[ModelRecord]:
    return Entry(ModelRecord(loaded=dict.fromkeys(loaded, 1)), 1, 1)


def test_each_write_of_the_log_is_counted_once() -> None:
    log = [
        event("update", STATUS, "a"),
        event("update", STATUS, "a"),
        event("create", "events", "a.1"),
        event("update", STATUS, "b", stage="ResponseStarted"),
        event("update", "leases", "leader"),
    ]
    assert writes(log) == [
        Write("update", STATUS, "a"),
        Write("update", STATUS, "a"),
        Write("create", "events", "a.1"),
    ]


def test_status_writes_are_told_apart_by_object_and_from_other_writes() -> None:
    log = [
        Write("update", STATUS, "a"),
        Write("patch", STATUS, "a"),
        Write("update", "inferenceservices", "a"),
        Write("update", "servingruntimes/status", "b"),
    ]
    assert status_writes(log, ["a", "b"]) == {"a": 2, "b": 0}


def test_only_a_ready_object_is_in_a_state() -> None:
    shown = Shown()
    shown.see(isvc(LOADED, ready="False"))
    assert shown.count(LOADED) == 0
    shown.see(isvc(LOADED))
    assert shown.count(LOADED) == 1
    shown.see(isvc(STANDBY))
    assert shown.count(LOADED) == 0


def test_a_change_counts_until_the_status_shows_the_same_state() -> None:
    happened = Happened(since=10.0, changes={MODEL_ID: [(11.0, STANDBY), (12.0, LOADED)]})
    shown = Shown(history={"digits": [(1.0, STANDBY), (2.0, LOADED), (11.5, STANDBY), (14.0, LOADED)]})
    assert delays(happened, shown) == ([0.5, 2.0], [])


def test_what_is_taken_back_at_once_needs_no_status() -> None:
    evicted_and_loaded = [(11.0, STANDBY), (11.1, LOADED)]
    happened = Happened(since=10.0, changes={MODEL_ID: [*evicted_and_loaded, (15.0, STANDBY)]})
    shown = Shown(history={"digits": [(1.0, LOADED), (15.25, STANDBY)]})
    assert delays(happened, shown) == ([0.25], [])


def test_statuses_show_the_models_when_all_are_in_the_state_of_the_registry() -> None:
    happened = Happened(since=10.0, changes={MODEL_ID: [(11.0, STANDBY)]})
    assert not happened.shows(Shown())
    assert not happened.shows(Shown(states={"digits": LOADED}))
    assert happened.shows(Shown(states={"digits": STANDBY}))


def test_a_change_that_no_status_shows_is_missing() -> None:
    happened = Happened(since=10.0, changes={MODEL_ID: [(11.0, STANDBY)]})
    shown = Shown(history={"digits": [(1.0, STANDBY), (12.0, LOADED)]})
    assert delays(happened, shown) == ([], [MODEL_ID])


def test_a_model_leaves_memory_with_its_last_copy() -> None:
    happened = Happened(since=0.0)
    happened.see(MODEL_ID, None, record("a"))
    happened.see(MODEL_ID, record("a"), record("a", "b"))
    assert happened.out_of_memory() == []
    happened.see(MODEL_ID, record("a", "b"), record())
    assert happened.out_of_memory() == [MODEL_ID]
    assert [state for _, state in happened.changes[MODEL_ID]] == [LOADED, STANDBY]


@pytest.mark.e2e
async def test_a_write_that_changes_nothing_is_counted(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as plane:
        await plane.client.create(NAMESPACE, {"metadata": {"name": OWN_NAMESPACE}})
        created = await plane.client.create(CONFIG_MAP, named("settings") | {"data": {"key": "value"}})
        assert plane.writes() == []
        async with await plane.client_as_controller() as client:
            same = await client.replace(CONFIG_MAP, created)
        assert same["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]
        await until(lambda: bool(plane.writes()), "the write is in the log", 30)
        assert plane.writes() == [Write("update", "configmaps", "settings")]

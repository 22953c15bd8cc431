from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from api.core import CONFIG_MAP, EVENT, ConfigMap, Namespace
from controller.runtime import EventRecorder
from controller.runtime.apiserver import Core, MemoryClient
from controller.runtime.errors import Forbidden
from controller.runtime.similar_events import BURST, MESSAGES, REFILL

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def client() -> MemoryClient:
    """A client of a server that lives at the time of these tests, so that it does not expire their events."""
    return MemoryClient(Core(clock=lambda: START, namespaces=("ns",)))


class Now:
    def __init__(self) -> None:
        self.value = START

    def __call__(self) -> dt.datetime:
        return self.value


async def config_map(client: MemoryClient) -> ConfigMap:
    return ConfigMap.parse(await client.create(CONFIG_MAP, {"metadata": {"name": "c", "namespace": "ns"}}))


async def events(client: MemoryClient, namespace: str = "ns") -> list[dict[str, Any]]:
    return (await client.list(EVENT, namespace)).items


async def test_an_event_says_what_happened_to_what(client: MemoryClient) -> None:
    obj = await config_map(client)
    await EventRecorder(client, "tests", now=Now()).event(obj, "Warning", "Broken", "It broke.")
    (event,) = await events(client)
    assert event["involvedObject"] | {"resourceVersion": ""} == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "c",
        "namespace": "ns",
        "uid": obj.metadata.uid,
        "resourceVersion": "",
    }
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "Broken", "It broke.")
    assert (event["count"], event["firstTimestamp"]) == (1, "2026-01-01T00:00:00Z")
    assert event["source"]["component"] == "tests"


async def test_the_same_event_again_is_counted(client: MemoryClient) -> None:
    now = Now()
    recorder = EventRecorder(client, "tests", now=now)
    obj = await config_map(client)
    for _ in range(3):
        await recorder.event(obj, "Warning", "Broken", "It broke.")
        now.value += dt.timedelta(seconds=10)
    (event,) = await events(client)
    assert event["count"] == 3
    assert event["firstTimestamp"] == "2026-01-01T00:00:00Z"
    assert event["lastTimestamp"] == "2026-01-01T00:00:20Z"


async def test_another_message_is_another_event_even_at_the_same_instant(client: MemoryClient) -> None:
    recorder = EventRecorder(client, "tests", now=Now())
    obj = await config_map(client)
    for message in ("one", "two"):
        await recorder.event(obj, "Normal", "Said", message)
    assert sorted(event["message"] for event in await events(client)) == ["one", "two"]


async def test_an_expired_event_is_made_anew(client: MemoryClient) -> None:
    recorder = EventRecorder(client, "tests", now=Now())
    obj = await config_map(client)
    await recorder.event(obj, "Normal", "Said", "hello")
    (event,) = await events(client)
    await client.delete(EVENT, event["metadata"]["name"], "ns")
    await recorder.event(obj, "Normal", "Said", "hello")
    (event,) = await events(client)
    assert event["count"] == 1


async def test_events_of_cluster_scoped_objects_are_in_default(client: MemoryClient) -> None:
    obj = Namespace.parse({"metadata": {"name": "ns"}})
    await EventRecorder(client, "tests", now=Now()).event(obj, "Normal", "Said", "hello")
    assert len(await events(client, "default")) == 1


async def test_an_object_with_the_longest_name_has_events(client: MemoryClient) -> None:
    name = "n" * 253
    raw = await client.create(CONFIG_MAP, {"metadata": {"name": name, "namespace": "ns"}})
    await EventRecorder(client, "tests", now=Now()).event(ConfigMap.parse(raw), "Normal", "Said", "hello")
    (event,) = await events(client)
    assert event["involvedObject"]["name"] == name


async def test_a_refused_event_does_not_disturb_the_caller(
    client: MemoryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_args: Any, **_more: Any) -> None:
        raise Forbidden("no events for you")

    obj = await config_map(client)
    monkeypatch.setattr(client, "create", refuse)
    await EventRecorder(client, "tests").event(obj, "Normal", "Said", "hello")
    monkeypatch.undo()
    assert await events(client) == []


async def test_many_messages_of_one_reason_become_one_event(client: MemoryClient) -> None:
    recorder = EventRecorder(client, "tests", now=Now())
    obj = await config_map(client)
    for number in range(MESSAGES + 5):
        await recorder.event(obj, "Warning", "Broken", f"It broke {number} times.")
    await recorder.event(obj, "Warning", "Other", "Something else.")
    found = {event["message"]: event["count"] for event in await events(client)}
    assert len(found) == MESSAGES + 2
    assert found["(combined from similar events): It broke 14 times."] == 5
    assert found["Something else."] == 1


async def test_messages_long_ago_are_not_combined_with(client: MemoryClient) -> None:
    now = Now()
    recorder = EventRecorder(client, "tests", now=now)
    obj = await config_map(client)
    for number in range(MESSAGES + 5):
        await recorder.event(obj, "Warning", "Broken", f"It broke {number} times.")
        now.value += dt.timedelta(seconds=601)
    assert not any("combined" in event["message"] for event in await events(client))


async def test_a_flood_about_one_object_is_cut_and_others_are_heard(client: MemoryClient) -> None:
    now = Now()
    recorder = EventRecorder(client, "tests", now=now)
    obj = await config_map(client)
    for _ in range(100):
        await recorder.event(obj, "Warning", "Broken", "It broke.")
    (event,) = await events(client)
    assert event["count"] == BURST
    other = Namespace.parse({"metadata": {"name": "ns"}})
    await recorder.event(other, "Normal", "Said", "hello")
    assert len(await events(client, "default")) == 1
    now.value += dt.timedelta(seconds=REFILL)
    await recorder.event(obj, "Warning", "Broken", "It broke.")
    (event,) = await events(client)
    assert event["count"] == BURST + 1

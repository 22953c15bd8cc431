"""Listing and watching against a scripted API server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from api.core import CONFIG_MAP
from controller.runtime import ListPage, WatchEvent
from controller.runtime.backoff import Backoff
from controller.runtime.errors import Forbidden, Gone, TransportError
from controller.runtime.reflector import Reflector

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


def obj(name: str, version: int = 1) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "ns", "resourceVersion": str(version)}}


class Silence:
    """In a script of a watch: nothing comes for ever."""


class Script:
    """Plays lists and watches from a script, then stops the test's reflector by hanging."""

    def __init__(self, *, lists: list[Any], watches: list[Any]) -> None:
        self.lists, self.watches = lists, watches
        self.calls: list[tuple[str, str]] = []
        self.finished = asyncio.Event()

    async def list(self, *_args: Any, continue_token: str = "", **_more: Any) -> ListPage:
        self.calls.append(("list", continue_token))
        answer = self.lists.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return ListPage(*answer)

    async def watch(
        self, *_args: Any, resource_version: str, **_more: Any
    ) -> AsyncGenerator[WatchEvent, None]:
        self.calls.append(("watch", resource_version))
        if not self.watches:
            self.finished.set()
            await asyncio.Event().wait()
        for step in self.watches.pop(0):
            if isinstance(step, Silence):
                await asyncio.Event().wait()
            if isinstance(step, Exception):
                raise step
            yield WatchEvent(*step)


class Seen:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], str] = {}
        self.log: list[str] = []

    def upsert(self, obj: dict[str, Any]) -> None:
        metadata = obj["metadata"]
        self.held[metadata["namespace"], metadata["name"]] = metadata["resourceVersion"]
        self.log.append(f"+{metadata['name']}")

    def delete(self, namespace: str, name: str) -> None:
        self.held.pop((namespace, name), None)
        self.log.append(f"-{name}")

    def keys(self, namespace: str) -> set[tuple[str, str]]:
        return {key for key in self.held if namespace in ("", key[0])}

    def synced(self, namespace: str) -> None:
        self.log.append(f"synced {namespace}".strip())


async def play(script: Script, **options: Any) -> tuple[Seen, list[float]]:
    """Run a reflector through the script; return what it saw and how long it would have slept."""
    sink, slept = Seen(), []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    reflector = Reflector(
        script,  # type: ignore[arg-type]
        CONFIG_MAP,
        sink,
        sleep=sleep,
        backoff=Backoff(base=1, limit=8, jitter=0),
        **options,
    )
    task = asyncio.create_task(reflector.run())
    async with asyncio.timeout(10):
        await script.finished.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    return sink, slept


async def test_a_list_comes_page_by_page_and_then_the_watch_continues_from_it() -> None:
    script = Script(
        lists=[([obj("a")], "", "p2"), ([obj("b")], "7", "")],
        watches=[[("ADDED", obj("c", 8)), ("DELETED", obj("a", 9)), ("MODIFIED", obj("b", 10))]],
    )
    sink, slept = await play(script)
    assert script.calls == [("list", ""), ("list", "p2"), ("watch", "7"), ("watch", "10")]
    assert sink.log == ["+a", "+b", "synced", "+c", "-a", "+b"]
    assert slept == []


async def test_a_bookmark_moves_the_point_to_resume_from() -> None:
    bookmark = ("BOOKMARK", {"metadata": {"resourceVersion": "99"}})
    script = Script(lists=[([], "7", "")], watches=[[bookmark]])
    sink, _ = await play(script)
    assert script.calls[-1] == ("watch", "99")
    assert sink.log == ["synced"]


async def test_a_watch_that_is_too_old_is_listed_again_and_what_vanished_is_deleted() -> None:
    script = Script(
        lists=[([obj("a"), obj("b")], "7", ""), ([obj("b", 20)], "21", "")],
        watches=[[("ADDED", obj("c", 8)), Gone("too old")]],
    )
    sink, slept = await play(script)
    assert sorted(sink.log[-3:]) == ["-a", "-c", "synced"]
    assert sink.held == {("ns", "b"): "20"}
    assert script.calls[-1] == ("watch", "21")
    assert slept == []


async def test_a_list_that_expires_between_pages_starts_over() -> None:
    script = Script(
        lists=[([obj("a")], "", "p2"), Gone("continue token expired"), ([obj("b")], "9", "")], watches=[]
    )
    sink, _ = await play(script)
    assert script.calls == [("list", ""), ("list", "p2"), ("list", ""), ("watch", "9")]
    assert sink.held == {("ns", "b"): "1"}


async def test_a_server_that_keeps_answering_gone_is_not_pressed() -> None:
    script = Script(lists=[([], "7", "")] * 4, watches=[[Gone("too old")]] * 3)
    _, slept = await play(script)
    assert slept == [1, 2, 4]


async def test_a_broken_connection_resumes_without_a_new_list() -> None:
    events = [("ADDED", obj("a", 8)), TransportError("reset")]
    script = Script(lists=[([], "7", "")], watches=[events, [TransportError("refused")]])
    _, slept = await play(script)
    assert script.calls == [("list", ""), ("watch", "7"), ("watch", "8"), ("watch", "8")]
    assert slept == [1, 2]


async def test_a_useful_watch_makes_the_next_delay_short_again() -> None:
    script = Script(
        lists=[([], "7", "")],
        watches=[
            [TransportError("x")],
            [TransportError("x")],
            [("ADDED", obj("a", 8))],
            [TransportError("x")],
        ],
    )
    _, slept = await play(script)
    assert slept == [1, 2, 1]


async def test_a_watch_that_ends_at_once_without_news_is_resumed_with_a_delay() -> None:
    script = Script(lists=[([], "7", "")], watches=[[], []])
    _, slept = await play(script)
    assert slept == [1, 2]


async def test_a_refused_list_is_tried_again() -> None:
    script = Script(lists=[Forbidden("no"), Forbidden("no"), ([obj("a")], "7", "")], watches=[])
    sink, slept = await play(script)
    assert sink.held == {("ns", "a"): "1"}
    assert slept == [1, 2]


@pytest.mark.parametrize("before", [[], [("ADDED", obj("a", 8))]])
async def test_a_silent_watch_is_given_up_and_resumed(before: list[Any]) -> None:
    script = Script(lists=[([], "7", "")], watches=[[*before, Silence()]])
    await play(script, inactivity=0.02)
    assert script.calls[-1] == ("watch", "8" if before else "7")

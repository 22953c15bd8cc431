import pytest

from controller.runtime.errors import BadRequest
from local.apiserver import LogRequest
from local.home import Home
from local.node import logs_of
from local.podlogs import LogFiles

POD = {"metadata": {"name": "web", "namespace": "ns"}}


@pytest.fixture
def logs(home: Home) -> LogFiles:
    folder = logs_of(home, "ns", "web", "c")
    folder.mkdir(parents=True)
    (folder / "9.log").write_text("old 1\nold 2\n")
    (folder / "10.log").write_text("new 1\nnew 2\nnew 3\n")
    return LogFiles(home)


async def text(logs: LogFiles, **options: object) -> str:
    return b"".join([piece async for piece in logs(LogRequest(POD, "c", **options))]).decode()


async def test_the_latest_run_is_shown(logs: LogFiles) -> None:
    assert await text(logs) == "new 1\nnew 2\nnew 3\n"


async def test_the_run_before_can_be_asked_for(logs: LogFiles) -> None:
    assert await text(logs, previous=True) == "old 1\nold 2\n"


@pytest.mark.parametrize(
    ("lines", "expected"), [(0, ""), (2, "new 2\nnew 3\n"), (9, "new 1\nnew 2\nnew 3\n")]
)
async def test_the_last_lines_can_be_asked_for(logs: LogFiles, lines: int, expected: str) -> None:
    assert await text(logs, tail_lines=lines) == expected


async def test_the_text_can_be_cut(logs: LogFiles) -> None:
    assert await text(logs, limit_bytes=3) == "new"


async def test_a_followed_log_goes_on_until_the_next_run(logs: LogFiles, home: Home) -> None:
    folder = logs_of(home, "ns", "web", "c")
    pieces = logs(LogRequest(POD, "c", follow=True))
    assert (await anext(pieces)).startswith(b"new 1")
    with (folder / "10.log").open("a") as file:
        file.write("new 4\n")
    assert await anext(pieces) == b"new 4\n"
    (folder / "11.log").touch()
    assert [piece async for piece in pieces] == []


async def test_a_container_that_never_ran_has_no_log(home: Home) -> None:
    with pytest.raises(BadRequest, match="not found"):
        await text(LogFiles(home))

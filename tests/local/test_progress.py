import io
import json

import pytest
from rich.console import Console

from local.progress import ConsoleProgress, JsonProgress, relay, step


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_step_shows_its_begin_its_end_and_its_time() -> None:
    stream = io.StringIO()
    with step(JsonProgress(stream), "Work"):
        pass
    begin, end = lines(stream)
    assert begin == {"begin": "Work"}
    assert (end["end"], end["failure"]) == ("Work", "")
    assert isinstance(end["seconds"], float)


def test_a_failed_step_says_why_and_passes_the_error_on() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="broken"), step(JsonProgress(stream), "Work"):
        raise ValueError("broken")
    assert lines(stream)[-1]["failure"] == "broken"


def test_what_a_supervisor_writes_is_shown_by_its_starter() -> None:
    sent = io.StringIO()
    progress = JsonProgress(sent)
    with step(progress, "Starting etcd"):
        pass
    progress.ready()
    shown = io.StringIO()
    console = ConsoleProgress(Console(file=shown, width=80))
    assert relay(iter(sent.getvalue().splitlines()), console) is None
    assert shown.getvalue().startswith("  ... Starting etcd\n  ok Starting etcd (0.0 s)")


def test_the_reason_of_a_failed_start_is_passed_on() -> None:
    sent = io.StringIO()
    JsonProgress(sent).failed("port 8033 is taken")
    assert relay(iter(sent.getvalue().splitlines()), JsonProgress(io.StringIO())) == "port 8033 is taken"
    assert relay(iter(()), JsonProgress(io.StringIO())) == ""


def test_a_reader_that_went_away_does_not_stop_the_work() -> None:
    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    progress = JsonProgress(Closed())
    progress.begin("Work")
    progress.ready()

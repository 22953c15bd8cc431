"""Progress of long work: what is happening, and how long it took.

Three ways out, one interface: a clock on a terminal, plain lines elsewhere, and JSON lines from the
supervisor to the process that started it, which shows them again in one of the two other ways.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import Progress as Display
from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator


class Progress(Protocol):
    """Where steps are shown."""

    def begin(self, title: str) -> None:
        """Show that a step began."""
        ...

    def end(self, title: str, seconds: float, failure: str = "") -> None:
        """Show that a step ended after `seconds`."""
        ...


@contextmanager
def step(progress: Progress, title: str) -> Iterator[None]:
    """Show a step for as long as the block runs; its exception passes through."""
    began = time.monotonic()
    progress.begin(title)
    try:
        yield
    except BaseException as error:
        progress.end(title, time.monotonic() - began, failure=str(error) or type(error).__name__)
        raise
    progress.end(title, time.monotonic() - began)


class ConsoleProgress:
    """Shows steps to a person: open ones with a clock on a terminal, else one line at each end."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._open: dict[str, TaskID] = {}
        self._display: Display | None = None

    def begin(self, title: str) -> None:
        """Show the step with a clock; off a terminal, print it."""
        if not self.console.is_terminal:
            self.console.print(f"  ... {title}", markup=False)
            return
        if self._display is None:
            columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
            self._display = Display(*columns, console=self.console, transient=True)
            self._display.start()
        self._open[title] = self._display.add_task(title, total=None)

    def end(self, title: str, seconds: float, failure: str = "") -> None:
        """Print the step with its time."""
        task = self._open.pop(title, None)
        if self._display is not None and task is not None:
            self._display.remove_task(task)
        mark = ("failed", "red") if failure else ("ok", "green")
        why = f": {failure}" if failure else ""
        self.console.print(Text.assemble("  ", mark, f" {title} ({seconds:.1f} s){why}"), soft_wrap=True)
        if not self._open:
            self.close()

    def close(self) -> None:
        """Take the clocks away."""
        self._open.clear()
        if self._display is not None:
            self._display.stop()
            self._display = None


class JsonProgress:
    """Writes steps as JSON lines until the reader goes away; then they are dropped."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream: IO[str] | None = stream or sys.stdout

    def begin(self, title: str) -> None:
        """Write a `begin` line."""
        self._write(begin=title)

    def end(self, title: str, seconds: float, failure: str = "") -> None:
        """Write an `end` line."""
        self._write(end=title, seconds=seconds, failure=failure)

    def ready(self) -> None:
        """Tell the reader that the start is complete."""
        self._write(ready=True)

    def failed(self, message: str) -> None:
        """Tell the reader that the start failed, with the text for the user."""
        self._write(failed=message)

    def _write(self, **line: object) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(json.dumps(line) + "\n")
            self._stream.flush()
        except OSError:
            self._stream = None


def relay(lines: Iterator[str], progress: Progress) -> str | None:
    """Show the JSON lines of a supervisor until it says that it is ready.

    Returns:
        None when it is ready; else the text of its failure, empty when it ended without one.
    """
    for text in lines:
        line = json.loads(text)
        match line:
            case {"begin": title}:
                progress.begin(title)
            case {"end": title, "seconds": seconds, "failure": failure}:
                progress.end(title, seconds, failure)
            case {"ready": True}:
                return None
            case {"failed": message}:
                return str(message)
    return ""

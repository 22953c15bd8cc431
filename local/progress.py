"""Progress of long work: what is happening, and how long it took.

Three ways out, one interface: a spinner on a terminal, plain lines elsewhere, and JSON lines from the
supervisor to the process that started it, which shows them again in one of the two other ways.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Protocol

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.status import Status


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
    """Shows steps to a person: a spinner with the open steps on a terminal, else one line at each end."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._open: dict[str, float] = {}
        self._spinner: Status | None = None

    def begin(self, title: str) -> None:
        """Add the step to the spinner; off a terminal, print it."""
        self._open[title] = time.monotonic()
        if self.console.is_terminal:
            self._spin()
        else:
            self.console.print(f"  ... {title}", markup=False)

    def end(self, title: str, seconds: float, failure: str = "") -> None:
        """Print the step with its time."""
        self._open.pop(title, None)
        self._spin()
        mark = "[red]failed[/red]" if failure else "[green]ok[/green]"
        self.console.print(f"  {mark} ", end="")
        self.console.print(f"{title} ({seconds:.1f} s)" + (f": {failure}" if failure else ""), markup=False)

    def close(self) -> None:
        """Stop the spinner."""
        self._open.clear()
        self._spin()

    def _spin(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None
        if self._open and self.console.is_terminal:
            self._spinner = self.console.status(", ".join(self._open) + " ...")
            self._spinner.start()


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

"""The echo runtime and its load generator (`bench/echo-runtime`), built, started and asked.

The runtime is a scriptable model server that keeps strict accounts of memory; `echo-runtime --help` and
`echo-load --help` list the options.
"""

import contextlib
import functools
import http.client
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CRATE = Path(__file__).parent / "echo-runtime"
TARGET = CRATE / "target"
STOP_SECONDS = 5


@functools.cache
def build() -> Path:
    """Builds both programs where they are out of date, and returns their folder.

    Raises:
        subprocess.CalledProcessError: cargo failed; it has written why to standard error.
    """
    command = ["cargo", "build", "--quiet", "--release", "--locked"]
    subprocess.run(
        [*command, "--manifest-path", str(CRATE / "Cargo.toml"), "--target-dir", str(TARGET)], check=True
    )
    return TARGET / "release"


class EchoRuntime:
    """A running echo runtime; as a context manager it stops at the end."""

    def __init__(self, *options: str) -> None:
        """Starts it and waits until it listens.

        Raises:
            RuntimeError: it ended at once; it has written why to standard error.
        """
        self.process = subprocess.Popen(
            [build() / "echo-runtime", *options], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout  # noqa: S101 - it is a pipe
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"echo-runtime {' '.join(options)} ended with {self.process.wait()}")
        bound = json.loads(line)
        self.targets: list[str] = bound["listen"]
        """Where the SPI and V2 inference are served: host:port or unix:/path."""
        self.stats_address: str = bound["stats"]

    @property
    def target(self) -> str:
        """The first of `targets`."""
        return self.targets[0]

    def stats(self) -> dict[str, int]:
        """What was counted since the start or the last reset, and what is held now (see `memory.rs`)."""
        return self._ask("GET", "/stats")

    def reset(self) -> dict[str, int]:
        """Counts from zero again, and returns what was counted before."""
        return self._ask("POST", "/reset")

    def purge(self) -> dict[str, int]:
        """Makes the runtime lose all models, as a server does that dies and comes back."""
        return self._ask("POST", "/purge")

    def _ask(self, method: str, path: str) -> dict[str, int]:
        connection = http.client.HTTPConnection(self.stats_address, timeout=10)
        try:
            connection.request(method, path)
            return dict(json.load(connection.getresponse()))
        finally:
            connection.close()

    def stop(self) -> None:
        """Ends the process; does nothing where it has ended."""
        self.process.kill()
        self.process.communicate(timeout=STOP_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def load(*options: str) -> dict[str, Any]:
    """Runs the load generator to its end and returns its report (`echo-load --help`).

    Raises:
        subprocess.CalledProcessError: it did not run; requests that fail are no such error.
    """
    printed = subprocess.run([build() / "echo-load", *options], check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(printed.stdout))


@contextlib.contextmanager
def background(*options: str) -> Iterator[None]:
    """Runs the load generator for the time of the block."""
    process = subprocess.Popen([build() / "echo-load", *options], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()

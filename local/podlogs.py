"""The text behind `kubectl logs`: the files that containers write to.

A process writes to its file directly, so the time of a line is not known: `--timestamps` adds none and
`--since` shows all.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from controller.runtime.errors import BadRequest
from local.node import logs_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from local.apiserver import LogRequest
    from local.home import Home

_FOLLOW_SECONDS = 0.2
"""How often a followed file is looked at for more."""
_PIECE_BYTES = 64 * 1024


class LogFiles:
    """Reads the logs of the pods of one home."""

    def __init__(self, home: Home) -> None:
        self._home = home

    async def __call__(self, request: LogRequest) -> AsyncGenerator[bytes, None]:
        """Yield the text of one container's log.

        Raises:
            BadRequest: the container has not run, or not before.
        """
        metadata = request.pod["metadata"]
        folder = logs_of(self._home, metadata["namespace"], metadata["name"], request.container)
        runs = sorted(folder.glob("*.log"), key=lambda file: int(file.stem))
        back = 2 if request.previous else 1
        if len(runs) < back:
            kind = "previous terminated container" if request.previous else "container"
            raise BadRequest(f'{kind} "{request.container}" in pod "{metadata["name"]}" not found')
        file = runs[-back]
        text = await asyncio.to_thread(file.read_bytes)
        position = len(text)
        if request.tail_lines is not None:
            lines = text.splitlines(keepends=True)
            text = b"".join(lines[len(lines) - min(request.tail_lines, len(lines)) :])
        if request.limit_bytes is not None:
            yield text[: request.limit_bytes]
            return
        yield text
        while request.follow and not request.previous:
            await asyncio.sleep(_FOLLOW_SECONDS)
            piece = await asyncio.to_thread(_read_from, file, position)
            position += len(piece)
            if piece:
                yield piece
            elif not file.exists() or file != _latest(folder):
                return


def _read_from(file: Path, position: int) -> bytes:
    try:
        with file.open("rb") as stream:
            stream.seek(position)
            return stream.read(_PIECE_BYTES)
    except FileNotFoundError:
        return b""


def _latest(folder: Path) -> Path | None:
    return max(folder.glob("*.log"), key=lambda file: int(file.stem), default=None)

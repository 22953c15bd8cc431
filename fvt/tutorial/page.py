"""The tutorial's page: its commands, and what it says they print."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fvt.overlay import ROOT

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """A block of shell, and the block of output that follows it, if one does."""

    text: str
    output: str


def commands() -> list[Command]:
    """Return the commands of docs/tutorial/cluster.md in order."""
    blocks = _BLOCK.findall((ROOT / "docs" / "tutorial" / "cluster.md").read_text())
    following = [*blocks[1:], ("shell", "")]
    return [
        Command(text, "" if next_kind == "shell" else output)
        for (kind, text), (next_kind, output) in zip(blocks, following, strict=True)
        if kind == "shell"
    ]


def columns(header: str) -> list[str]:
    """Return the names in the head of a table that kubectl printed."""
    return header.split()


def cells(table: str) -> list[dict[str, str]]:
    """Return the rows of a table that kubectl printed, by the places of its head: a cell may be empty."""
    header, *rows = [line for line in table.splitlines() if line.strip()]
    starts = [(found.group(), found.start()) for found in re.finditer(r"\S+", header)]
    ends = [start for _, start in starts[1:]] + [None]
    return [
        {name: row[start:end].strip() for (name, start), end in zip(starts, ends, strict=True)}
        for row in rows
    ]

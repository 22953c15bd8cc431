"""Figures of a suite: measured values beside the range that the project promises.

A suite's file `bench/results/<suite>.json` is a list of
`{"figure", "value", "unit", "low", "high", "command"}`. Ranges are set by hand in the committed file; a run
replaces values only, so that a figure that leaves its range shows in `make bench-check` and in the diff.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value; `low` and `high` bound it, None where a side is open."""

    figure: str
    value: float
    unit: str
    low: float | None
    high: float | None
    command: str

    @property
    def within(self) -> bool:
        """Says whether the value is inside its range."""
        return (self.low is None or self.value >= self.low) and (self.high is None or self.value <= self.high)


def load(suite: str) -> list[Figure]:
    """Reads the committed figures of a suite; empty where there are none yet."""
    path = RESULTS / f"{suite}.json"
    return [Figure(**entry) for entry in json.loads(path.read_text())] if path.exists() else []


def save(suite: str, measured: list[tuple[str, float, str]], command: str) -> list[Figure]:
    """Writes `measured` (figure, value, unit) with the known ranges, prints a table, and returns the figures.

    A figure that was not measured this time keeps its committed value.
    """
    known = {figure.figure: figure for figure in load(suite)}
    for name, value, unit in measured:
        old = known.get(name)
        low, high = (old.low, old.high) if old else (None, None)
        known[name] = Figure(name, round(value, 4), unit, low, high, command)
    figures = list(known.values())
    RESULTS.mkdir(exist_ok=True)
    text = ",\n".join(f"  {json.dumps(asdict(figure))}" for figure in figures)
    (RESULTS / f"{suite}.json").write_text(f"[\n{text}\n]\n")
    print(table(figures))
    return figures


def _bound(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def table(figures: list[Figure]) -> str:
    """Formats figures as text, one a line, with a mark where one is outside its range."""
    rows = [("figure", "value", "unit", "range", "")]
    rows += [
        (
            figure.figure,
            f"{figure.value:g}",
            figure.unit,
            f"{_bound(figure.low)} to {_bound(figure.high)}",
            "" if figure.within else "OUTSIDE",
        )
        for figure in figures
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )

"""Run the parts in order, and say at the end what passed, what failed, and what was left out and why.

A case that failed may have met a busy machine: it is run once more alone, and both results are told.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree  # noqa: ICN001 -- files that pytest wrote a moment ago

ROOT = Path(__file__).parent.parent
REPORT = Path(".modelmesh") / "fvt"
WORKERS = "3"
PASSED, FAILED, UNSTEADY, LEFT_OUT = "passed", "failed", "unsteady", "left out"
PARTS = {
    "tutorial": ["-o", "log_cli=true"],
    "cases": ["-n", WORKERS],
    "alone": ["-o", "log_cli=true"],
    "clusterwide": ["-o", "log_cli=true"],
}
"""Folder, and how pytest runs it: what can, side by side; the rest tells what it waits for as it goes."""
WALKS = {"tutorial", "clusterwide"}
"""Parts whose cases build on each other: they are repeated whole."""
FAILURES_AT_MOST = 10
"""A part with more is broken off: they have one cause."""
REPEATED_AT_MOST = 3
"""So many cases of a part may have met a busy machine."""
_NOTHING_CHOSEN = 5


@dataclass
class Outcome:
    """What became of the cases."""

    results: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    @property
    def counts(self) -> Counter[str]:
        """How many cases have which result."""
        return Counter(self.results.values())

    def names(self, result: str) -> list[str]:
        """The cases with this result."""
        return [name for name, found in self.results.items() if found == result]

    def add(self, other: Outcome) -> None:
        """Add the cases of another part."""
        self.results |= other.results
        self.skipped |= other.skipped
        self.broken += other.broken

    def repeated(self, again: Outcome) -> None:
        """Add what the second run of failed cases gave; one that passed now is neither passed nor failed."""
        for name, result in again.results.items():
            if self.results.get(name) == FAILED and result == PASSED:
                self.results[name] = UNSTEADY
            elif result == FAILED:
                self.results[name] = FAILED
        self.broken += again.broken


def read(file: Path) -> Outcome:
    """Read pytest's report of one part."""
    found = Outcome()
    for case in ElementTree.parse(file).iter("testcase"):  # noqa: S314 -- see the import
        name = f"{case.get('classname', '').removeprefix('fvt.')}::{case.get('name')}"
        skip = case.find("skipped")
        if skip is not None:
            found.results[name] = LEFT_OUT
            found.skipped[name] = skip.get("message", "")
        elif case.find("failure") is not None or case.find("error") is not None:
            found.results[name] = FAILED
        else:
            # A failing teardown is a second entry of its case.
            found.results.setdefault(name, PASSED)
    return found


def node(name: str) -> str:
    """Return how pytest names a case of a report."""
    module, _, case = name.partition("::")
    return f"fvt/{module.replace('.', '/')}.py::{case}"


def main(arguments: list[str]) -> int:
    """Run the parts; `arguments` go to pytest, and names of parts among them choose.

    Returns:
        0 where at least one case passed and none failed twice.
    """
    chosen = [name for name in arguments if name in PARTS] or list(PARTS)
    options = [name for name in arguments if name not in PARTS]
    (ROOT / REPORT).mkdir(parents=True, exist_ok=True)
    outcome = Outcome()
    for part in chosen:
        began = time.monotonic()
        found = _run(part, [f"fvt/{part}", *PARTS[part], *options])
        failed = found.names(FAILED)
        if 0 < len(failed) <= REPEATED_AT_MOST and not found.broken:
            print(f"\nTHESE FAILED, and are run once more alone: {', '.join(failed)}", flush=True)
            which = [f"fvt/{part}"] if part in WALKS else [node(name) for name in failed]
            found.repeated(_run(f"{part}-again", [*which, "-o", "log_cli=true", *options]))
        outcome.add(found)
        outcome.seconds[part] = time.monotonic() - began
    return _tell(outcome)


def _run(title: str, arguments: list[str]) -> Outcome:
    file = ROOT / REPORT / f"{title}.xml"
    file.unlink(missing_ok=True)
    print(f"\n=== fvt: {title} ===", flush=True)
    how = [
        "-o",
        "log_cli_level=INFO",
        "--log-level=INFO",
        "-ra",
        "--tb=short",
        f"--maxfail={FAILURES_AT_MOST}",
    ]
    command = [sys.executable, "-m", "pytest", *how, f"--junitxml={file}", *arguments]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    found = read(file) if file.exists() else Outcome()
    if status not in {0, 1, _NOTHING_CHOSEN}:
        found.broken.append(f"{title} ended with {status}")
    return found


def _tell(outcome: Outcome) -> int:
    print("\n=== fvt: summary ===")
    for part, seconds in outcome.seconds.items():
        print(f"  {part:<12} {seconds:5.0f} s")
    for name, reason in outcome.skipped.items():
        print(f"  LEFT OUT {name}: {reason}")
    for name in outcome.names(UNSTEADY):
        print(f"  UNSTEADY {name}: FAILED FIRST, passed when it was run once more alone")
    for name in outcome.names(FAILED):
        print(f"  FAILED   {name}")
    for text in outcome.broken:
        print(f"  BROKEN   {text}")
    counts = outcome.counts
    print("  " + ", ".join(f"{counts[result]} {result}" for result in (PASSED, UNSTEADY, FAILED, LEFT_OUT)))
    good = counts[PASSED] or counts[UNSTEADY]
    return 0 if good and not counts[FAILED] and not outcome.broken else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

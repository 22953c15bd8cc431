"""Run the parts in order, and say at the end what passed, what failed, and what was left out and why."""

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
PARTS = {
    "tutorial": ["-o", "log_cli=true"],
    "cases": ["-n", WORKERS],
    "alone": ["-o", "log_cli=true"],
    "clusterwide": ["-o", "log_cli=true"],
}
"""Folder, and how pytest runs it: what can, side by side; the rest tells what it waits for as it goes."""
_NOTHING_CHOSEN = 5


@dataclass
class Outcome:
    """What became of the cases."""

    counts: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, file: Path) -> None:
        """Read pytest's report of one part."""
        for case in ElementTree.parse(file).iter("testcase"):  # noqa: S314 -- see the import
            name = f"{case.get('classname', '').removeprefix('fvt.')}::{case.get('name')}"
            skip = case.find("skipped")
            if skip is not None:
                self.counts["left out"] += 1
                self.skipped[name] = skip.get("message", "")
            elif case.find("failure") is not None or case.find("error") is not None:
                self.counts["failed"] += 1
                self.failed.append(name)
            else:
                self.counts["passed"] += 1


def main(arguments: list[str]) -> int:
    """Run the parts; `arguments` go to pytest, and names of parts among them choose.

    Returns:
        0 where at least one case passed and none failed.
    """
    chosen = [name for name in arguments if name in PARTS] or list(PARTS)
    options = [name for name in arguments if name not in PARTS]
    folder = ROOT / REPORT
    folder.mkdir(parents=True, exist_ok=True)
    outcome = Outcome()
    broken = []
    for part in chosen:
        file = folder / f"{part}.xml"
        file.unlink(missing_ok=True)
        began = time.monotonic()
        print(f"\n=== fvt: {part} ===", flush=True)
        how = [*PARTS[part], "-o", "log_cli_level=INFO", "--log-level=INFO", "-ra", "--tb=short"]
        command = [sys.executable, "-m", "pytest", f"fvt/{part}", *how, f"--junitxml={file}", *options]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        outcome.seconds[part] = time.monotonic() - began
        if file.exists():
            outcome.add(file)
        if status not in {0, 1, _NOTHING_CHOSEN}:
            broken.append(f"{part} ended with {status}")
    return _tell(outcome, broken)


def _tell(outcome: Outcome, broken: list[str]) -> int:
    print("\n=== fvt: summary ===")
    for part, seconds in outcome.seconds.items():
        print(f"  {part:<12} {seconds:5.0f} s")
    for name, reason in outcome.skipped.items():
        print(f"  LEFT OUT {name}: {reason}")
    for name in outcome.failed:
        print(f"  FAILED   {name}")
    for text in broken:
        print(f"  BROKEN   {text}")
    counts = outcome.counts
    print(f"  {counts['passed']} passed, {counts['failed']} failed, {counts['left out']} left out")
    return 0 if counts["passed"] and not counts["failed"] and not broken else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

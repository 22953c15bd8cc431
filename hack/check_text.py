"""Checks text files for what editors disagree about: the final newline, trailing white space, tabs."""

import sys
from pathlib import Path

TABS_ALLOWED = {"Makefile", ".gitmodules", "go.mod"}


def problems(path: Path) -> list[str]:
    """Returns one line for each problem, as `file:line: what`."""
    text = path.read_text(encoding="utf-8")
    found = [
        f"{path}:{number}: {what}"
        for number, line in enumerate(text.split("\n"), start=1)
        for what, wrong in (
            ("trailing white space", line != line.rstrip()),
            ("tab", "\t" in line and path.name not in TABS_ALLOWED and path.suffix != ".go"),
        )
        if wrong
    ]
    if text and not text.endswith("\n"):
        found.append(f"{path}: no newline at the end")
    return found


if __name__ == "__main__":
    found = [problem for name in sys.argv[1:] for problem in problems(Path(name))]
    sys.stdout.write("".join(f"{problem}\n" for problem in found))
    sys.exit(bool(found))

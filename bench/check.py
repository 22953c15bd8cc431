"""Fails where a figure in bench/results is outside its range."""

import sys

from bench import figures


def main() -> int:
    """Prints every suite's table; returns 1 where a figure is outside its range."""
    failed = False
    for path in sorted(figures.RESULTS.glob("*.json")):
        suite = figures.load(path.stem)
        print(f"{path.stem}\n{figures.table(suite)}\n")
        failed |= not all(figure.within for figure in suite)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

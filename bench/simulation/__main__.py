"""Runs the scenarios, prints the table, and saves the figure."""

import argparse
import secrets
import sys

from bench import figures
from bench.simulation.scenarios import FULL, Result, run, scenarios

FIGURE = "sim_hit_rate_gap_points"


def table(results: list[Result]) -> str:
    """Formats hit rates in per cent, and loads."""
    rows = [("scenario", "mesh", "global LRU", "optimum", "gap", "loads", "loads of LRU", "refused")]
    for result in results:
        optimum = f"{100 * result.optimum.hit_rate:.2f} %" if result.optimum else "-"
        rows.append(
            (
                result.name,
                f"{100 * result.mesh.hit_rate:.2f} %",
                f"{100 * result.lru.hit_rate:.2f} %",
                optimum,
                f"{result.gap_points:.2f}",
                str(result.mesh.loads),
                str(result.lru.loads),
                str(result.refused),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def main() -> int:
    """Returns 1 where an instance was over its capacity."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    arguments = parser.parse_args()
    results = []
    for scenario in scenarios(FULL, arguments.seed):
        results.append(run(scenario))
        print(f"{scenario.name}: {results[-1].seconds:.0f} s", file=sys.stderr)
    print(f"{FULL.instances} instances, {FULL.models} models, room for {FULL.room}, seed {arguments.seed}\n")
    print(table(results) + "\n")
    gap = max(result.gap_points for result in results)
    figures.save("mesh", [(FIGURE, gap, "points")], "python -m bench.simulation")
    return int(any(result.over_capacity > 0 for result in results))


if __name__ == "__main__":
    sys.exit(main())

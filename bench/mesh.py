"""The mesh on real processes: a cache far too small for its models, many models, and one that stays quick.

Every suite starts its own etcd, mesh processes and echo runtimes. The sequence of requests comes from a seed
that is drawn anew for each run.
"""

import argparse
import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from bench import echo, figures
from bench.cluster import MIB, Client, cluster

COMMAND = "make bench-mesh"
Measured = list[tuple[str, float, str]]

CHURN_MODELS = 2_000
CHURN_CAPACITY_MODELS = 104
CHURN_REQUESTS = 20_000


def models(count: int, path: str = f"SIZE_{MIB}_0_0", name: str = "model") -> dict[str, str]:
    """Ids and paths of models, as the load generator names them."""
    return {f"{name}-{number}": path for number in range(count)}


def lru_loads(requests: Iterable[str], capacity: int) -> int:
    """Loads that a plain least-recently-used cache of so many models does for a sequence of requests."""
    cache: OrderedDict[str, None] = OrderedDict()
    loads = 0
    for model in requests:
        if model in cache:
            cache.move_to_end(model)
            continue
        loads += 1
        cache[model] = None
        if len(cache) > capacity:
            cache.popitem(last=False)
    return loads


def requested(sequence: Path) -> list[str]:
    """The models that the load generator asked for, in the order of sending."""
    return sequence.read_text().split()


async def churn(seed: int) -> Measured:
    """2,000 models of 1 MiB where 104 fit, Zipf(1.0), 32 requests in flight, loads that take no time."""
    with cluster() as mesh:
        instance = mesh.add(f"--capacity={CHURN_CAPACITY_MODELS * MIB}")
        async with Client([instance]) as client:
            await client.register(models(CHURN_MODELS))
        sequence = mesh.file("sequence")
        report = echo.load(
            f"--target={instance.target}",
            f"--models={CHURN_MODELS}",
            "--zipf=1.0",
            f"--seed={seed}",
            "--in-flight=32",
            f"--requests={CHURN_REQUESTS}",
            "--deadline-ms=10000",
            f"--sequence={sequence}",
        )
        stats = instance.runtime.stats()
        expected = lru_loads(requested(sequence), CHURN_CAPACITY_MODELS)
        print(report, stats, expected, instance.process.cpu_times())
        return [
            ("churn_errors", report["requests"] - report["ok"], "requests"),
            (
                "churn_over_capacity_bytes",
                max(0, stats["peak_asked_bytes"] - stats["capacity_bytes"]),
                "bytes",
            ),
            ("churn_rps", report["rps"], "requests/s"),
            ("loads_per_s", stats["loads"] / report["seconds"], "loads/s"),
            ("churn_extra_loads_ratio", stats["loads"] / expected, "ratio"),
        ]


SUITES: dict[str, Callable[[int], Awaitable[Measured]]] = {"churn": churn}


async def run(names: Iterable[str], seed: int) -> None:
    """Runs suites in turn, and saves the figures of each as soon as they are there."""
    for name in names:
        print(f"{name} (seed {seed})", flush=True)
        figures.save("mesh", await SUITES[name](seed), COMMAND)


def main() -> None:
    """Measures and writes bench/results/mesh.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32), help="of the requests")
    parser.add_argument("--only", nargs="+", choices=SUITES, default=list(SUITES), help="suites to run")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.only, arguments.seed))


if __name__ == "__main__":
    main()

"""The mesh on real processes: a cache far too small for its models, many models, and one that stays quick.

Every suite starts its own etcd, mesh processes and echo runtimes. The sequence of requests comes from a seed
that is drawn anew for each run.
"""

import argparse
import asyncio
import secrets
import statistics
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from bench import echo, figures
from bench.cluster import MIB, Client, cluster, register

COMMAND = "make bench-mesh"
Measured = list[tuple[str, float, str]]

CHURN_MODELS = 2_000
CHURN_CAPACITY_MODELS = 104
CHURN_REQUESTS = 20_000
PAIRS = 3
"""What is compared is measured in turns, and the median of the ratios counts."""
SETTLE_SECONDS = 3
IDLE_SECONDS = 15


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
        register([instance], CHURN_MODELS)
        sequence = mesh.file("sequence")
        before = instance.cpu_seconds()
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
        spent = instance.cpu_seconds() - before
        print(
            f"p50 {report['p50_ms']:.1f} ms, p99 {report['p99_ms']:.1f} ms, "
            f"longest {report['max_ms']:.0f} ms, "
            f"{1000 * spent / stats['loads']:.2f} ms of the mesh's CPU for each load, "
            f"{spent / report['seconds']:.2f} cores"
        )
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


async def hot(seed: int) -> Measured:
    """A hot model at 500 requests/s, alone and while 128 callers wait for models that take 3 s to load."""
    with cluster() as mesh:
        instance = mesh.add()
        register([instance], 256, path=f"SIZE_{MIB}_3000_0", name="slow")
        register([instance], 1, name="hot")
        async with Client([instance]) as client:
            await client.load(["hot-0"])
        target = f"--target={instance.target}"
        asked = (target, "--in-flight=0", "--hot=hot-0", "--hot-rate=500", f"--seed={seed}", "--seconds=10")
        alone = echo.load(*asked)["hot"]
        callers = ("--model=slow-{}", "--models=256", "--in-flight=128", "--seconds=60")
        with echo.background(target, *callers, "--deadline-ms=120000", f"--seed={seed}"):
            await asyncio.sleep(SETTLE_SECONDS)
            beside = echo.load(*asked)["hot"]
        print(f"p50 alone {alone['p50_ms']:.2f} ms, beside the waiting {beside['p50_ms']:.2f} ms")
        print(f"errors {beside['errors']}, longest {beside['max_ms']:.0f} ms")
        return [("hot_p50_ratio_while_others_load", beside["p50_ms"] / alone["p50_ms"], "ratio")]


async def warm(seed: int) -> Measured:
    """50 warm models at 1,000 requests/s, with and without 200 loads/s beside them, in turns."""
    with cluster() as mesh:
        instance = mesh.add(f"--capacity={200 * MIB}")
        register([instance], 50, name="warm")
        register([instance], 4_000, name="cold")
        async with Client([instance]) as client:
            await client.load([f"warm-{number}" for number in range(50)])
        target = f"--target={instance.target}"
        ratios = []
        for turn in range(PAIRS):
            hits = ("--model=warm-{}", "--models=50", "--rate=1000", f"--seed={seed + turn}", "--seconds=6")
            quiet = echo.load(target, *hits)
            misses = ("--model=cold-{}", "--models=4000", "--rate=206", f"--seed={seed + turn}")
            with echo.background(target, *misses, "--seconds=60"):
                instance.runtime.reset()
                busy = echo.load(target, *hits)
            loads = instance.runtime.stats()["loads"] / 6
            ratios.append(busy["p99_ms"] / quiet["p99_ms"])
            print(
                f"p99 {quiet['p99_ms']:.2f} ms, beside {loads:.0f} loads/s {busy['p99_ms']:.2f} ms; "
                f"errors {busy['errors']}"
            )
        return [("hit_p99_during_loads_ratio", statistics.median(ratios), "ratio")]


async def many(seed: int) -> Measured:
    """20,000 models on two instances with room for a tenth; then 100,000.

    A hit is faster than a miss, so the median of the hits is that quantile of all requests which lies in the
    middle of those without a load.
    """
    with cluster() as mesh:
        instances = [mesh.add(f"--capacity={1_000 * MIB}") for _ in range(2)]
        registered = register(instances, 20_000)
        await asyncio.sleep(SETTLE_SECONDS)
        before = [instance.cpu_seconds() for instance in instances]
        await asyncio.sleep(IDLE_SECONDS)
        idle = max(instance.cpu_seconds() - used for instance, used in zip(instances, before, strict=True))
        targets = [f"--target={instance.target}" for instance in instances]
        asked = (*targets, "--zipf=1.0", "--rate=500")
        echo.load(*asked, "--models=20000", f"--seed={seed}", "--seconds=30")
        pairs, errors = [], 0
        for turn in range(PAIRS):
            options = (f"--seed={seed + turn + 1}", "--seconds=8")
            few = echo.load(*asked, "--models=100", *options)
            for instance in instances:
                instance.runtime.reset()
            full = echo.load(*asked, "--models=20000", *options)
            misses = sum(instance.runtime.stats()["loads"] for instance in instances) / full["requests"]
            hit = full["percentiles_ms"][round(50 * (1 - misses)) - 1]
            pairs.append(hit / few["p50_ms"])
            errors += full["requests"] - full["ok"]
            print(
                f"p50 of 100 models {few['p50_ms']:.2f} ms, of hits of 20,000 {hit:.2f} ms, of all "
                f"{full['p50_ms']:.2f} ms; p99 {full['p99_ms']:.1f} ms, {misses:.0%} misses, "
                f"errors {full['errors']} {full['error_texts']}"
            )
        rss_20k = max(instance.rss_mib() for instance in instances)
        print(f"80,000 more: {register(instances, 80_000, first=20_000):.0f} registrations/s")
        await asyncio.sleep(SETTLE_SECONDS)
        rss_100k = max(instance.rss_mib() for instance in instances)
        instances[1].stop()
        start = instances[1].start()
        rss_100k = max(rss_100k, instances[1].rss_mib())
        return [
            ("register_per_s", registered, "models/s"),
            ("idle_cpu_cores", idle / IDLE_SECONDS, "cores"),
            ("zipf_hit_p50_ratio", statistics.median(pairs), "ratio"),
            ("zipf_errors", errors, "requests"),
            ("rss_20k_mib", rss_20k, "MiB"),
            ("rss_100k_mib", rss_100k, "MiB"),
            ("start_100k_s", start, "s"),
        ]


SUITES: dict[str, Callable[[int], Awaitable[Measured]]] = {
    "churn": churn,
    "hot": hot,
    "warm": warm,
    "many": many,
}


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

"""How many copies a model gets under a load, and how soon: the product's rules on a fake clock.

`python -m bench.simulation.copies` prints a table. Requests spread evenly over the copies, which serve when
they are loaded.
"""

from mesh.placement import Candidate
from mesh.scaling import MINUTE_MS, USUAL_TERMS, Growth, More, Situation, Usage, more
from store.records import ModelRecord, Resources

INSTANCES = 12
LOADS = (10, 1_000, 2_000, 3_000, 5_000, 10_000, 20_000, 40_000)
"""Requests a minute."""
LOAD_MS = 3_000
END_MS = 20 * MINUTE_MS
START_MS = 1_700_000_000_000


def run(load: int) -> tuple[list[tuple[int, int]], int]:
    """Times (ms after the begin of the load) with the copies from then on; requests/min of each at last."""
    record = ModelRecord(type="t", instances={"i0": START_MS}, loaded={"i0": START_MS})
    usages = {f"i{number}": Usage() for number in range(INSTANCES)}
    history = [(0, 1)]
    step = round(USUAL_TERMS.look_seconds * 1000)
    for now in range(START_MS + step, START_MS + END_MS, step):
        share = load / len(record.loaded)
        situation = Situation([_candidate(name, record, share) for name in usages])
        added: list[str] = []
        for name in record.loaded:
            usage = usages[name]
            usage.note("m", round(share * step / MINUTE_MS) or 1, now)
            usage.look(step, now)
            wish = more(usage.uses["m"], record, situation, own_id=name, terms=USUAL_TERMS, now=now)
            if wish and not added:
                added = _targets(wish, record)
        if added:
            times = dict.fromkeys(added, now)
            record = ModelRecord(type="t", instances=record.instances | times, loaded=record.loaded | times)
            history.append((now - START_MS + LOAD_MS, len(record.loaded)))
    return history, round(load / len(record.loaded))


def _candidate(name: str, record: ModelRecord, share: float) -> Candidate:
    return Candidate(
        instance_id=name,
        labels=frozenset(),
        capacity=Resources(100),
        used=Resources(50),
        lru_time=START_MS,
        loading=0,
        load_slots=1,
        rpm=round(share) if name in record.loaded else 0,
        ready=True,
    )


def _targets(wish: More, record: ModelRecord) -> list[str]:
    free = [f"i{number}" for number in range(INSTANCES) if f"i{number}" not in record.instances]
    return free[: wish.count]


def second_copy_after_s() -> float:
    """When a model that is used all the time, a little, has its second copy; in seconds."""
    history, _ = run(LOADS[0])
    return next(time for time, copies in history if copies > 1) / 1000


def main() -> None:
    """Prints the table."""
    print(f"{INSTANCES} instances, threshold {USUAL_TERMS.threshold} requests/min for each copy")
    print(f"{'requests/min':>12}  {'per copy at the end':>19}  copies after seconds ({Growth.LOAD.value})")
    for load in LOADS:
        history, share = run(load)
        steps = ", ".join(f"{copies} after {time / 1000:.0f}" for time, copies in history[1:]) or "1"
        print(f"{load:>12}  {share:>19}  {steps}")


if __name__ == "__main__":
    main()

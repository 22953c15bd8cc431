"""What was sent to others counts until their records show it."""

from mesh.outstanding import SHOWN_SECONDS, Outstanding
from store.records import Resources
from tests.mesh.test_placement import candidate


def used(outstanding: Outstanding, now: float) -> list[int]:
    seen = outstanding.beside([candidate("a", used=Resources(5)), candidate("b", used=Resources(7))], now)
    return [one.used.memory for one in seen]


def test_a_load_counts_where_it_was_sent_and_is_forgotten_in_time() -> None:
    outstanding = Outstanding()
    outstanding.add("a", Resources(10), 0.0)
    outstanding.add("a", Resources(100), 0.5)
    outstanding.add("gone", Resources(1), 0.5)
    assert used(outstanding, 0.5) == [115, 7]
    assert used(outstanding, SHOWN_SECONDS) == [105, 7]
    assert used(outstanding, 0.5 + SHOWN_SECONDS) == [5, 7]
    assert outstanding._totals == {}


def test_what_nobody_asks_about_does_not_grow() -> None:
    outstanding = Outstanding()
    for second in range(100):
        outstanding.add("a", Resources(10), float(second))
    assert len(outstanding._sent) == 1

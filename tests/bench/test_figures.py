import json
from pathlib import Path

import pytest

from bench import check, figures


@pytest.fixture(autouse=True)
def _results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    return tmp_path


def _committed(path: Path, **entry: object) -> None:
    figure = {
        "figure": "ratio",
        "value": 1.0,
        "unit": "ratio",
        "low": 0.9,
        "high": None,
        "command": "make bench",
    }
    (path / "suite.json").write_text(json.dumps([figure | entry]))


def test_a_run_replaces_the_value_and_keeps_the_range(tmp_path: Path) -> None:
    _committed(tmp_path)
    (saved,) = figures.save("suite", [("ratio", 0.95, "ratio")], "make bench-suite")
    assert (saved.value, saved.low, saved.high) == (0.95, 0.9, None)
    assert figures.load("suite") == [saved]


def test_a_figure_that_was_not_measured_stays(tmp_path: Path) -> None:
    _committed(tmp_path)
    figures.save("suite", [("other", 2.0, "s")], "make bench-suite")
    assert [figure.figure for figure in figures.load("suite")] == ["ratio", "other"]


@pytest.mark.parametrize(("value", "status"), [(0.89, 1), (0.9, 0), (2.0, 0)])
def test_check_fails_where_a_figure_is_below_its_range(tmp_path: Path, value: float, status: int) -> None:
    _committed(tmp_path, value=value)
    assert check.main() == status


def test_check_fails_where_a_figure_is_above_its_range(tmp_path: Path) -> None:
    _committed(tmp_path, value=97, low=None, high=96)
    assert check.main() == 1

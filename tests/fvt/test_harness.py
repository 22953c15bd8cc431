"""What the functional verification rests on, as far as it can be told without a cluster."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fvt import __main__ as runner
from fvt import overlay
from fvt.tutorial.page import cells, commands
from fvt.waiting import WaitedInVainError, wait

REPORT = """\
<testsuites><testsuite>
  <testcase classname="fvt.cases.test_a" name="test_good"/>
  <testcase classname="fvt.cases.test_a" name="test_left"><skipped message="no image of triton"/></testcase>
  <testcase classname="fvt.cases.test_a" name="test_bad"><failure message="no"/></testcase>
  <testcase classname="fvt.cases.test_a" name="test_broken"><error message="no"/></testcase>
</testsuite></testsuites>
"""


def outcome_of(report: str, folder: Path) -> runner.Outcome:
    file = folder / "report.xml"
    file.write_text(report)
    return runner.read(file)


def report_of(*kept: str) -> str:
    """The report with only these cases."""
    lines = REPORT.splitlines()
    return "\n".join(
        line for line in lines if "testcase" not in line or any(f"test_{name}" in line for name in kept)
    )


def test_a_case_that_was_left_out_is_not_counted_as_passed(tmp_path: Path) -> None:
    outcome = outcome_of(REPORT, tmp_path)
    assert outcome.counts == {"passed": 1, "left out": 1, "failed": 2}
    assert outcome.skipped == {"cases.test_a::test_left": "no image of triton"}
    assert outcome.names("failed") == ["cases.test_a::test_bad", "cases.test_a::test_broken"]


@pytest.mark.parametrize(
    ("kept", "status"), [(("good",), 0), (("good", "left"), 0), (("left",), 1), (("good", "bad"), 1)]
)
def test_only_a_run_in_which_something_passed_and_nothing_failed_succeeds(
    tmp_path: Path, kept: tuple[str, ...], status: int
) -> None:
    assert runner._tell(outcome_of(report_of(*kept), tmp_path)) == status


def test_a_part_that_did_not_run_to_its_end_fails_the_run(tmp_path: Path) -> None:
    outcome = outcome_of(report_of("good"), tmp_path)
    outcome.broken.append("cases ended with 3")
    assert runner._tell(outcome) == 1


def test_a_case_that_fails_once_and_passes_alone_is_told_as_unsteady(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = outcome_of(report_of("good", "bad"), tmp_path)
    outcome.repeated(outcome_of('<testcase classname="fvt.cases.test_a" name="test_bad"/>', tmp_path))
    assert outcome.counts == {"passed": 1, "unsteady": 1}
    assert runner._tell(outcome) == 0
    printed = capsys.readouterr().out
    assert "UNSTEADY cases.test_a::test_bad: FAILED FIRST" in printed
    assert "1 passed, 1 unsteady, 0 failed" in printed


def test_a_case_that_fails_twice_fails_the_run(tmp_path: Path) -> None:
    outcome = outcome_of(report_of("good", "bad"), tmp_path)
    outcome.repeated(outcome_of(report_of("good", "bad"), tmp_path))
    assert outcome.counts == {"passed": 1, "failed": 1}
    assert runner._tell(outcome) == 1


SUITE = """\
import pathlib
import pytest

def test_good():
    pass

@pytest.mark.parametrize("word", ["two words"])
def test_bad_once(word):
    met = pathlib.Path("met")
    if not met.exists():
        met.touch()
        pytest.fail("busy")

def test_always_bad():
    pytest.fail("no")
"""


def test_a_run_repeats_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fvt" / "cases").mkdir(parents=True)
    (tmp_path / "fvt" / "cases" / "test_a.py").write_text(SUITE)
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    monkeypatch.setattr(runner, "PARTS", {"cases": []})
    assert runner.main([]) == 1
    printed = capfd.readouterr().out
    assert "UNSTEADY cases.test_a::test_bad_once[two words]" in printed
    assert "FAILED   cases.test_a::test_always_bad" in printed


def test_a_case_that_failed_is_found_again_by_its_name() -> None:
    name = runner.node("cases.test_bad_input::test_a_contradiction_is_refused_with_what_to_do[two forms]")
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", name, "fvt/alone", "--short"]
    done = subprocess.run(command, cwd=overlay.ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert name in lines, done.stdout + done.stderr
    assert any("test_uninstalling_leaves_nothing" in line for line in lines)
    assert not any("test_a_model_may_name_any_claim" in line for line in lines)


def test_a_wait_in_vain_tells_for_what_and_what_was_seen() -> None:
    def look() -> bool:
        raise AssertionError("two pods are not ready")

    with pytest.raises(WaitedInVainError, match="for the pods; last seen: two pods are not ready"):
        wait(look, "the pods", 0)


def test_a_cell_of_a_table_may_be_empty() -> None:
    table = "NAME   URL   READY\na            False\nbc     x:1   True\n"
    assert cells(table) == [
        {"NAME": "a", "URL": "", "READY": "False"},
        {"NAME": "bc", "URL": "x:1", "READY": "True"},
    ]


def test_the_page_promises_the_answers_of_the_models_it_deploys() -> None:
    by_grpc, by_rest = (
        json.loads(command.output) for command in commands() if command.text.startswith("MODEL_NAME")
    )
    assert by_grpc["modelName"] == by_rest["model_name"] == "example-sklearn-isvc__isvc-6b2eb0b8bf"


def test_the_overlay_lowers_cpu_requests_and_nothing_else(tmp_path: Path) -> None:
    config = overlay.write(tmp_path)
    assert config == tmp_path / "config"
    changed = 0
    for name in ("config", "runtimes"):
        for file in (tmp_path / name).rglob("*.yaml"):
            shipped = (overlay.ROOT / file.relative_to(tmp_path)).read_text()
            different = [
                (old.strip(), new.strip())
                for old, new in zip(shipped.splitlines(), file.read_text().splitlines(), strict=True)
                if old != new
            ]
            assert set(different) <= {("cpu: 500m", "cpu: 50m")}
            changed += len(different)
    assert changed == len(list((overlay.ROOT / "runtimes").glob("*.yaml")))

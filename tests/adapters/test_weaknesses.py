"""The table of the original's weaknesses names every one of them, and tests that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "decisions" / "0025-weaknesses-of-the-original.md"


def test_every_weakness_has_tests_and_every_test_is_there() -> None:
    rows = re.findall(r"^\| W-(\d+) \|[^|]*\|([^|]*)\|$", TABLE.read_text(), re.MULTILINE)
    assert sorted({int(number) for number, _ in rows}) == list(range(1, 28))
    sources = [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "dataplane" / "src").rglob("*.rs")]
    pattern = re.compile(r"^ *(?:(?:async )?def (test_\w+)\(|fn (\w+)\(\) \{)", re.MULTILINE)
    tests = {name for file in sources for names in pattern.findall(file.read_text()) for name in names}
    for number, text in rows:
        named = set(re.findall(r"`(\w+)`", text))
        assert named, f"W-{number} names no test"
        assert named <= tests, f"W-{number} names tests that are gone: {named - tests}"

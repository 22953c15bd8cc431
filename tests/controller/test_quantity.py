from decimal import Decimal

import pytest

from controller.quantity import format_bytes, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("1Gi", 2**30),
        ("500m", "0.5"),
        ("1.5k", 1500),
        ("1e3", 1000),
        ("2E", 2 * 10**18),
        (".5", "0.5"),
    ],
)
def test_parses(text: str, value: int | str) -> None:
    assert parse(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "lots", "1GiB", "1 Gi", "--1"])
def test_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        parse(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1, "1"), (1536 * 2**20, "1536Mi"), (2**31, "2Gi"), (1_500_000_001, "1500000001")],
)
def test_formats_exactly(value: int, text: str) -> None:
    assert format_bytes(value) == text

"""Kubernetes quantities: `500m`, `1Gi`, `1e3`."""

from __future__ import annotations

import re
from decimal import Decimal

_FORM = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


def parse(text: str) -> Decimal:
    """Returns the value of a quantity; ValueError where it is none."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity such as 500m or 1Gi")
    number, suffix = Decimal(match[1]), match[2] or ""
    if suffix in _BINARY:
        return number * Decimal(1024) ** (_BINARY.index(suffix) + 1)
    exponent = _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:] or "0")
    return number.scaleb(exponent)


def format_bytes(value: int) -> str:
    """Writes a number of bytes with the largest binary suffix that divides it."""
    suffix = ""
    for larger in _BINARY:
        if value == 0 or value % 1024:
            break
        value, suffix = value // 1024, larger
    return f"{value}{suffix}"

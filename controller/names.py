"""Names as Kubernetes allows them; each check returns the text, or raises ValueError with the rule."""

from __future__ import annotations

import re

_PART = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_OBJECT = re.compile(rf"{_PART}(\.{_PART})*")
_SERVICE = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def service_name(text: str) -> str:
    """Checks the name of a Service."""
    if not _SERVICE.fullmatch(text):
        raise ValueError(
            f"{text!r} is no name of a Service: at most 63 of a-z, 0-9 and '-', first a letter, last no '-'"
        )
    return text


def object_name(text: str) -> str:
    """Checks the name of a Secret or ServiceAccount; empty is none."""
    if text and not _OBJECT.fullmatch(text):
        raise ValueError(f"{text!r} is no name of an object: a-z, 0-9, and '-' or '.' between them")
    return text


def label_key(text: str) -> str:
    """Checks the key of a label or annotation."""
    prefix, slash, name = text.rpartition("/")
    if not _LABEL.fullmatch(name) or (slash and not _OBJECT.fullmatch(prefix)):
        raise ValueError(f"{text!r} is no key of a label or annotation, such as example.com/team or team")
    return text


def label_value(text: str) -> str:
    """Checks the value of a label."""
    if text and not _LABEL.fullmatch(text):
        raise ValueError(f"{text!r} is no value of a label: at most 63 of A-Z, a-z, 0-9, '-', '_' and '.'")
    return text

"""Label and field selectors, in the text form of the Kubernetes API.

A selector becomes one predicate over an object. Labels know equality and sets (`a=b`, `a!=b`, `a in (x,y)`,
`a notin (x)`, `a`, `!a`) and numbers (`a>1`, `a<9`); fields know equality only, and only the paths that a
kind declares.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from controller.runtime.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from controller.runtime.client import JSON

    Predicate = Callable[[JSON], bool]

_REQUIREMENT = re.compile(
    r"""\s*(?:
        (?P<absent>!)\s*(?P<absent_key>[\w./-]+)
      | (?P<set_key>[\w./-]+)\s+(?P<set_op>in|notin)\s*\((?P<values>[^)]*)\)
      | (?P<number_key>[\w./-]+)\s*(?P<than>[<>])\s*(?P<number>-?\d+)
      | (?P<key>[\w./-]+)\s*(?:(?P<op>==|=|!=)\s*(?P<value>[\w.-]*))?
    )\s*(?:,|$)""",
    re.VERBOSE,
)


def labels(selector: str) -> Predicate:
    """Return the predicate of a label selector; BadRequest when it does not parse."""
    requirements = [_requirement(match) for match in _requirements(selector)]

    def matches(obj: JSON) -> bool:
        found = obj["metadata"].get("labels") or {}
        return all(test(found.get(key)) for key, test in requirements)

    return matches


def _requirements(selector: str) -> list[re.Match[str]]:
    matches = []
    position = 0
    while position < len(selector):
        match = _REQUIREMENT.match(selector, position)
        if match is None:
            raise BadRequest(f'unable to parse label selector "{selector}" at "{selector[position:]}"')
        matches.append(match)
        position = match.end()
    return matches


def _requirement(match: re.Match[str]) -> tuple[str, Callable[[str | None], bool]]:
    if match["absent"]:
        return match["absent_key"], lambda value: value is None
    if match["set_key"]:
        wanted = frozenset(value.strip() for value in match["values"].split(","))
        if match["set_op"] == "in":
            return match["set_key"], lambda value: value in wanted
        return match["set_key"], lambda value: value not in wanted
    if match["number_key"]:
        bound, sign = int(match["number"]), 1 if match["than"] == ">" else -1
        return match["number_key"], lambda value: sign * (_integer(value, bound) - bound) > 0
    expected = match["value"]
    tests: dict[str | None, Callable[[str | None], bool]] = {
        None: lambda value: value is not None,
        "!=": lambda value: value != expected,
    }
    return match["key"], tests.get(match["op"], lambda value: value == expected)


def _integer(value: str | None, otherwise: int) -> int:
    return int(value) if value is not None and re.fullmatch(r"-?\d+", value) else otherwise


def fields(selector: str, supported: Collection[str]) -> Predicate:
    """Return the predicate of a field selector; BadRequest for a path that the kind does not declare."""
    terms: list[tuple[tuple[str, ...], str, bool]] = []
    for term in filter(None, (part.strip() for part in selector.split(","))):
        path, operator, value = _field_term(term)
        if path not in supported:
            raise BadRequest(f"field label not supported: {path}")
        terms.append((tuple(path.split(".")), value, operator != "!="))

    def matches(obj: JSON) -> bool:
        return all((_text_at(obj, path) == value) is equal for path, value, equal in terms)

    return matches


def _field_term(term: str) -> tuple[str, str, str]:
    for operator in ("!=", "==", "="):
        path, found, value = term.partition(operator)
        if found:
            return path.strip(), operator, value.strip()
    raise BadRequest(f'invalid field selector "{term}": can\'t understand it, write path=value')


def _text_at(obj: Any, path: tuple[str, ...]) -> str:
    for key in path:
        if not isinstance(obj, dict):
            return ""
        obj = obj.get(key)
    return "" if obj is None else str(obj)

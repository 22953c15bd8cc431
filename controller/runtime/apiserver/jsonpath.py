"""The JSONPath of printer columns and scale paths, as far as CustomResourceDefinitions may use it.

Fields (`.spec.name`, `['a.b']`), indexes (`[0]`, `[-1]`), `[*]`, and filters by comparison or presence
(`[?(@.type=='Ready')]`).
"""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Step = Callable[[Any], Iterator[Any]]

_TOKEN: Final = re.compile(
    r"""\.?(?P<field>[\w-]+(?:\\.[\w-]+)*)
      | (?=\.)\.(?=\[)
      | \[\s*(?P<quote>['"])(?P<quoted>.+?)(?P=quote)\s*\]
      | \[\s*(?P<index>-?\d+)\s*\]
      | (?P<all>\[\s*\*\s*\]|\.\*)
      | \[\?\(\s*(?P<filter>.+?)\s*\)\]""",
    re.VERBOSE,
)
_FILTER: Final = re.compile(r"""@(?P<path>[^\s=!<>]*)\s*(?:(?P<op>==|!=|<=|>=|<|>)\s*(?P<literal>.+))?""")
_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compile_path(path: str) -> Callable[[Any], list[Any]]:
    """Return a function that finds all values under `path`; ValueError when it does not parse."""
    steps = list(_parse(path.strip().removeprefix("{").removesuffix("}").removeprefix("$")))

    def find(value: Any) -> list[Any]:
        found = [value]
        for step in steps:
            found = [result for item in found for result in step(item)]
        return found

    return find


def _parse(path: str) -> Iterator[Step]:
    position = 0
    while position < len(path):
        match = _TOKEN.match(path, position)
        if match is None:
            raise ValueError(f'cannot read the JSONPath "{path}" at "{path[position:]}"')
        position = match.end()
        if match["field"]:
            yield _field(match["field"].replace("\\.", "."))
        elif match["quoted"]:
            yield _field(match["quoted"])
        elif match["index"]:
            yield _index(int(match["index"]))
        elif match["all"]:
            yield _all
        elif match["filter"]:
            yield _filter(match["filter"])


def _field(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _index(index: int) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= index < len(value):
            yield value[index]

    return step


def _all(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()


def _filter(text: str) -> Step:
    match = _FILTER.fullmatch(text)
    if match is None:
        raise ValueError(f'cannot read the JSONPath filter "{text}"')
    find = compile_path(match["path"])
    compare = _OPERATORS.get(match["op"] or "")
    literal = _literal(match["literal"] or "")

    def step(value: Any) -> Iterator[Any]:
        for item in value if isinstance(value, list) else ():
            found = find(item)
            if found and (compare is None or _holds(compare, found[0], literal)):
                yield item

    return step


def _holds(compare: Callable[[Any, Any], bool], value: Any, literal: Any) -> bool:
    try:
        return compare(value, literal)
    except TypeError:
        return False


def _literal(text: str) -> Any:
    if text[:1] in {"'", '"'}:
        return text[1:-1]
    if text in {"true", "false"}:
        return text == "true"
    try:
        return float(text)
    except ValueError:
        return text

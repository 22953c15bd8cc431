"""Editing protobuf text files without knowing their message.

A model's `config.pbtxt` may use fields that are newer than any schema that we could ship, so it is not parsed
into messages and printed again: top-level fields are found, some are taken out, and the rest stays as its
author wrote it, comments included.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.errors import InvalidModelError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_TOKEN = re.compile(
    r"""(?P<space>[\s,;]+|\#[^\n]*)
      | (?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<open>[{\[<])
      | (?P<close>[}\]>])
      | (?P<colon>:)
      | (?P<word>[^\s,;:"'{}\[\]<>\#]+)""",
    re.VERBOSE,
)
_PAIRS = {"{": "}", "[": "]", "<": ">"}


@dataclass(frozen=True, slots=True)
class Field:
    """A top-level field: its name, its value as written, and where it stands in the text."""

    name: str
    value: str
    start: int
    end: int


def fields(text: str) -> list[Field]:
    """Finds the top-level fields.

    Raises:
        InvalidModelError: the text is no protobuf text; says in which line.
    """
    found = []
    tokens = [match for match in _tokens(text) if match.lastgroup != "space"]
    position = 0
    while position < len(tokens):
        first = tokens[position]
        bracketed = first.group() == "["  # the name of an extension
        value = _after_brackets(tokens, position, text) if bracketed else position + 1
        if not bracketed and first.lastgroup != "word":
            raise _wrong(text, first.start(), f"{first.group()} stands where a field's name should")
        colon = value < len(tokens) and tokens[value].lastgroup == "colon"
        value += colon
        end = _after_value(tokens, value, text, scalar=colon)
        name = text[first.start() : tokens[value - 1].start() if colon else first.end()].strip()
        last = tokens[end - 1].end()
        found.append(Field(name, text[tokens[value].start() : last], first.start(), last))
        position = end
    return found


def without(text: str, names: Collection[str]) -> str:
    """Takes top-level fields out, each with the blanks and the separator behind it; errors as `fields`."""
    kept, position = [], 0
    for field in fields(text):
        if field.name in names:
            kept.append(text[position : field.start])
            separator = re.compile(r"[ \t]*[,;]?[ \t]*\n?").match(text, field.end)
            position = separator.end() if separator else field.end
    return "".join(kept) + text[position:]


def quoted(value: str) -> str:
    """A string value as protobuf text writes it."""
    return json.dumps(value, ensure_ascii=False)


def _tokens(text: str) -> Iterator[re.Match[str]]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _wrong(text, position, "a quoted text does not end")
        yield match
        position = match.end()


def _after_value(tokens: list[re.Match[str]], position: int, text: str, *, scalar: bool) -> int:
    """The position behind the value that begins at `position`."""
    if position >= len(tokens):
        raise _wrong(text, len(text), "the last field has no value")
    kind = tokens[position].lastgroup
    if kind == "open":
        return _after_brackets(tokens, position, text)
    if not scalar or kind not in {"word", "text"}:
        raise _wrong(
            text, tokens[position].start(), f"{tokens[position].group()} stands where a value should"
        )
    position += 1
    while kind == "text" and position < len(tokens) and tokens[position].lastgroup == "text":
        position += 1  # neighbouring texts are one
    return position


def _after_brackets(tokens: list[re.Match[str]], position: int, text: str) -> int:
    opened: list[str] = []
    for index in range(position, len(tokens)):
        token = tokens[index]
        if token.lastgroup == "open":
            opened.append(_PAIRS[token.group()])
        elif token.lastgroup == "close" and opened.pop() != token.group():
            raise _wrong(text, token.start(), f"{token.group()} closes what it did not open")
        if not opened:
            return index + 1
    raise _wrong(text, tokens[position].start(), f"{tokens[position].group()} is never closed")


def _wrong(text: str, position: int, problem: str) -> InvalidModelError:
    return InvalidModelError(f"line {text.count(chr(10), 0, position) + 1}: {problem}")

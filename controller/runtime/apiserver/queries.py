"""What a list or a watch asks for: selectors, pages, and the bookkeeping of a page's token."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from controller.runtime.apiserver import selectors
from controller.runtime.errors import BadRequest, Gone

if TYPE_CHECKING:
    from controller.runtime.apiserver.kinds import ServedKind
    from controller.runtime.apiserver.selectors import Predicate
    from controller.runtime.apiserver.store import Key, Snapshot


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Parameters of a list: selectors in text form, `limit` objects a page (0: all), the page's token."""

    label_selector: str = ""
    field_selector: str = ""
    limit: int = 0
    continue_token: str = ""


@dataclass(frozen=True, slots=True)
class WatchQuery:
    """Parameters of a watch.

    Attributes:
        label_selector: as in a list.
        field_selector: as in a list.
        resource_version: the watch yields what changed after it; empty or `0`: present objects first.
        send_initial_events: start with the present objects and mark their end with a bookmark.
        bookmarks: whether to send BOOKMARK events.
        timeout_seconds: how long the watch lasts.
    """

    label_selector: str = ""
    field_selector: str = ""
    resource_version: str = ""
    send_initial_events: bool = False
    bookmarks: bool = True
    timeout_seconds: float = 300


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; `remaining` is the number of objects after it, None when unknown."""

    items: list[Snapshot]
    version: int
    continue_token: str = ""
    remaining: int | None = None


class _Token(msgspec.Struct):
    """Where the next page starts, and the version of the first page, which stands for the whole list.

    Later pages show the present. A watch from the first page's version brings whatever changed in between, so
    a client that lists and then watches ends up right.
    """

    version: int
    last: tuple[str, str]


def encode_token(version: int, last: Key) -> str:
    """Return the token of the page after `last`."""
    return base64.urlsafe_b64encode(msgspec.json.encode(_Token(version, last))).decode()


def decode_token(text: str) -> _Token:
    """Read a token; BadRequest when it is not one of ours."""
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text), type=_Token)
    except (binascii.Error, msgspec.DecodeError, ValueError) as error:
        raise BadRequest(f"continue key is not valid: {error}") from error


def predicate(kind: ServedKind, label_selector: str, field_selector: str) -> Predicate:
    """Return the test of both selectors."""
    if not label_selector and not field_selector:
        return lambda _obj: True
    by_label = selectors.labels(label_selector)
    by_field = selectors.fields(field_selector, kind.selectable)
    return lambda obj: by_label(obj) and by_field(obj)


def parse_version(text: str) -> int:
    """Read a resourceVersion; BadRequest when it is no number."""
    try:
        return int(text or 0)
    except ValueError:
        raise BadRequest(f'invalid resource version "{text}"') from None


def expired() -> Gone:
    """Return the error for a token whose list is no longer known."""
    return Gone("The provided continue parameter is too old; list again from the start")

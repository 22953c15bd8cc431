"""The report: one line a check, with the words of what did not pass, and a sum at the end."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import TYPE_CHECKING

from modelmesh.conformance.checks import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from modelmesh.conformance.checks import Check, Result

PASSED, FAILED, INCOMPLETE = 0, 1, 3
"""Exit statuses; 2 is a wrong command line. Not to have looked is not to have passed."""

_WIDTH = 110
_INDENT = " " * 18


def heading(check: Check, before: Check | None) -> str:
    """Returns the line above the first check of a group; empty for the others."""
    return f"\n{check.group}\n" if before is None or before.group != check.group else ""


def line(result: Result) -> str:
    """Returns how one check ended; with its demand where it failed."""
    text = f"  {result.verdict.value:<14}  {result.check.name}"
    if result.verdict is Verdict.FAILED:
        text += f"\n{_wrapped(f'must hold: {result.check.demand}')}\n{_wrapped(f'but: {result.words}')}"
    elif result.verdict is Verdict.NOT_RUN and result.needed:
        text += f" (needs {result.needed})"
    elif result.words:
        text += f"\n{_wrapped(result.words)}"
    return text


def summary(results: Sequence[Result], *, all_made: bool) -> str:
    """Returns the sum of a run; `all_made` is whether it had every check, and not some that were chosen."""
    count = Counter(result.verdict for result in results)
    numbers = [f"{count[verdict]} {verdict.value.lower()}" for verdict in Verdict if count[verdict]]
    seconds = sum(result.seconds for result in results)
    text = f"\n{', '.join(numbers)}; {seconds:.1f} s"
    match exit_status(results):
        case 0:
            kept = "the contract" if all_made else "what was checked of the contract"
            return f"{text}\nThe runtime keeps {kept}."
        case 1:
            failed = ", ".join(r.check.name for r in results if r.verdict is Verdict.FAILED)
            return f"{text}\nThe runtime breaks the contract: {failed}."
        case _:
            return f"{text}\nNothing was found wrong, but not everything was tried; exit status {INCOMPLETE}."


def exit_status(results: Iterable[Result]) -> int:
    """Returns the exit status of a run."""
    verdicts = {result.verdict for result in results}
    if Verdict.FAILED in verdicts:
        return FAILED
    return INCOMPLETE if Verdict.NOT_RUN in verdicts else PASSED


def listing(checks: Iterable[Check]) -> Iterator[str]:
    """Yields every check with its demand."""
    before: Check | None = None
    for check in checks:
        yield f"{heading(check, before)}  {check.name}\n{_wrapped(check.demand, '      ')}"
        before = check


def _wrapped(text: str, indent: str = _INDENT) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)

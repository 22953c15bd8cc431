"""Reading environment variables: every problem is collected, so that one start tells them all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from adapters.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

LARGEST_PORT = 65535

_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_FALSE = {"0", "f", "F", "FALSE", "false", "False"}


@dataclass(slots=True)
class Reader:
    """Parses variables, with a default for what is not set; wrong values become `problems`."""

    environment: Mapping[str, str]
    problems: list[str] = field(default_factory=list)

    def problem(self, text: str) -> None:
        """Notes what is wrong with a variable."""
        self.problems.append(text)

    def number(self, name: str, default: int, *, least: int, most: int | None = None) -> int:
        """A whole number between two limits."""
        value = self._parsed(name, default, int, "a whole number")
        if value < least or (most is not None and value > most):
            limits = f"at least {least}" if most is None else f"{least} to {most}"
            self.problem(f"{name} is {value} and must be {limits}")
        return value

    def port(self, name: str, default: int, *, least: int = 1) -> int:
        """A port; `least` 0 where that says that there is none."""
        return self.number(name, default, least=least, most=LARGEST_PORT)

    def factor(self, name: str, default: float) -> float:
        """A number above 0."""
        value = self._parsed(name, default, float, "a number")
        if not 0 < value < float("inf"):
            self.problem(f"{name} is {value} and must be more than 0")
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        """A boolean as Go writes them."""
        value = self.environment.get(name)
        if value is None:
            return default
        if value not in _TRUE | _FALSE:
            self.problem(f'{name} is "{value}" and must be true or false')
        return value in _TRUE

    def _parsed(self, name: str, default: T, parse: Callable[[str], T], kind: str) -> T:
        value = self.environment.get(name)
        if value is None:
            return default
        try:
            return parse(value)
        except ValueError:
            self.problem(f'{name} is "{value}" and must be {kind}')
            return default

    def finish(self) -> None:
        """Ends the reading.

        Raises:
            ConfigurationError: names every variable that is wrong and what it must be.
        """
        if self.problems:
            raise ConfigurationError("; ".join(self.problems))

"""What can be wrong with a test environment."""

from __future__ import annotations


class TestEnvironmentError(Exception):
    """The environment cannot start; the text says what is missing or what the program said last."""

    __test__ = False

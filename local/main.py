"""Entry point of `modelmesh local`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from local.cli import app
from local.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Run the command line; return its exit status. An error of local mode is one line on standard error."""
    try:
        result = app(list(argv), prog_name="modelmesh local", standalone_mode=True)
    except LocalError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return int(result or 0)

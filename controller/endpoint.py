"""Endpoints as a ServingRuntime writes them: `port:N` or `unix:PATH` (also `unix:///PATH`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

_PORT = re.compile(r"port:([0-9]{1,5})")
_LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A TCP port of the pod's loopback interface, or a Unix socket in a volume of the pod."""

    port: str = ""
    socket_path: str = ""

    @property
    def socket_directory(self) -> str:
        """The folder to mount for the socket; empty for a port."""
        return str(PurePosixPath(self.socket_path).parent) if self.socket_path else ""


def parse(text: str) -> Endpoint:
    """Reads an endpoint; what does not begin with `port:` is taken as the path of a socket."""
    if text.startswith("port:"):
        return Endpoint(port=text.removeprefix("port:"))
    return Endpoint(socket_path=text.replace("unix://", "", 1).replace("unix:", "", 1))


def is_valid(text: str) -> bool:
    """Tells whether `text` has one of the two forms exactly."""
    if number := _PORT.fullmatch(text):
        return 0 < int(number[1]) <= _LAST_PORT
    return text.startswith("unix:") and bool(parse(text).socket_path)

"""Ports of the loopback interface: finding free ones, and saying who has a taken one."""

from __future__ import annotations

import errno
import random
import socket

import psutil

from local.errors import PortTakenError

LOOPBACK = "127.0.0.1"

_RANGE = range(20000, 30000)
"""Below Linux's ephemeral range (32768 and up), so that no outgoing connection takes a port between the
moment it is chosen here and the moment its process binds it."""


def is_free(port: int) -> bool:
    """Return whether a TCP port of 127.0.0.1 can be bound now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
    return True


class PortAllocator:
    """Hands out free ports, none of them twice until it is released."""

    def __init__(self, random_source: random.Random | None = None) -> None:
        self._random = random_source or random.Random()  # noqa: S311 -- not a secret
        self._used: set[int] = set()

    def allocate(self) -> int:
        """Return a port that nobody listens on and that is not given away."""
        for _ in range(10 * len(_RANGE)):
            port = self._random.choice(_RANGE)
            if port not in self._used and is_free(port):
                self._used.add(port)
                return port
        raise PortTakenError(f"no free port between {_RANGE.start} and {_RANGE.stop - 1} of {LOOPBACK}")

    def release(self, port: int) -> None:
        """Allow `port` to be handed out again."""
        self._used.discard(port)


def owner_of(port: int) -> str:
    """Describe the process that listens on `port`, as far as this user may see it."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
            try:
                name = " ".join(psutil.Process(connection.pid).cmdline()[:4])[:120]
            except psutil.Error:
                name = "unknown command"
            return f"process {connection.pid} ({name}); stop it with: kill {connection.pid}"
    return f"a process of another user; find it with: sudo ss -ltnp 'sport = :{port}'"


def require_free(port: int, purpose: str, option: str) -> None:
    """Check that a fixed port is free.

    Args:
        port: TCP port of 127.0.0.1.
        purpose: what it is for, such as "inference by gRPC".
        option: the command-line option that chooses another port.

    Raises:
        PortTakenError: says which process to stop.
    """
    if not is_free(port):
        raise PortTakenError(
            f"port {port} of {LOOPBACK} ({purpose}) is taken by {owner_of(port)}; "
            f"or choose another port with {option}",
        )

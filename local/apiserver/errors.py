"""Errors of the local API server itself."""

from __future__ import annotations


class AddressInUse(Exception):  # noqa: N818 -- the name says what happened
    """The server cannot listen on its address.

    Attributes:
        host: the address.
        port: the port.
    """

    def __init__(self, host: str, port: int, cause: OSError) -> None:
        self.host = host
        self.port = port
        reason = cause.strerror or cause
        super().__init__(
            f"the API server cannot listen on {host}:{port}: {reason}. Stop what listens there "
            f"(`ss -ltnp 'sport = :{port}'` names it) or choose another port",
        )

"""Endpoints as a ServingRuntime writes them: `port:N` of this pod, or `unix:PATH`."""

import re

from adapters.environment import LARGEST_PORT
from adapters.errors import ConfigurationError


def grpc_target(endpoint: str, variable: str) -> str:
    """The gRPC target of an endpoint; `variable` is where it was written, for messages.

    Raises:
        ConfigurationError: the text is no endpoint.
    """
    if endpoint.startswith("unix:") and len(endpoint) > len("unix:"):
        return endpoint
    port = re.fullmatch(r"port:([0-9]{1,5})", endpoint)
    if not port or not 0 < int(port[1]) <= LARGEST_PORT:
        raise ConfigurationError(f'{variable} is "{endpoint}" and must be port:NUMBER or unix:PATH')
    return f"localhost:{port[1]}"

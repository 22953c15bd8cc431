"""What can go wrong; gRPC codes and words are those of OpenVINO Model Server."""

import grpc


class ReloadError(Exception):
    """The configuration, or a model in it, could not be used; the message is the answer by REST."""


class RequestError(Exception):
    """A request that cannot be answered."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def not_found(message: str) -> RequestError:
    """An error about a model or version that is not there."""
    return RequestError(grpc.StatusCode.NOT_FOUND, message)


def invalid(message: str) -> RequestError:
    """An error that the client has to correct."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)

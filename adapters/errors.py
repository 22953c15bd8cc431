"""What can go wrong in an adapter, each with the gRPC code that the mesh sees.

INVALID_ARGUMENT and NOT_FOUND are the user's to fix, UNAVAILABLE passes by itself, and anything that the
model server says keeps the server's own code.
"""

from typing import ClassVar

import grpc


class AdapterError(Exception):
    """Base of all expected failures; the message is written for the owner of the model."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL

    @property
    def status(self) -> grpc.StatusCode:
        """The code that the caller gets."""
        return self.code


class ConfigurationError(AdapterError):
    """The process cannot run with its environment variables or arguments."""


class InvalidModelKeyError(AdapterError):
    """The `modelKey` of a request is not the JSON object that the controller writes."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class InvalidModelError(AdapterError):
    """The files of a model cannot be laid out for the server."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class StorageConfigError(AdapterError):
    """The storage settings of a model (Secret entry and parameters) do not say where to pull from."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class StorageKeyError(StorageConfigError):
    """The storage Secret, as it is mounted now, has no entry of the model's storage key."""


class StorageError(AdapterError):
    """Pulling failed for a reason that no other class names."""

    code = grpc.StatusCode.UNKNOWN


class ObjectNotFoundError(StorageError):
    """The storage answered, and there is nothing at the model's path."""

    code = grpc.StatusCode.NOT_FOUND


class StorageDeniedError(StorageError):
    """The storage refused the credentials."""

    code = grpc.StatusCode.PERMISSION_DENIED


class StorageUnavailableError(StorageError):
    """The storage could not be reached, or failed, also after retries."""

    code = grpc.StatusCode.UNAVAILABLE


class CorruptObjectError(StorageError):
    """What arrived is not what the storage's own checksum says, also when it was read again."""

    code = grpc.StatusCode.DATA_LOSS


class DiskFullError(StorageError):
    """The pod's model volume has no room left for the model."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class ModelNotLoadedError(AdapterError):
    """A question about a model that is not loaded."""

    code = grpc.StatusCode.NOT_FOUND


class LoadAbandonedError(AdapterError):
    """A load ended because an unload of the same model overtook it."""

    code = grpc.StatusCode.ABORTED


class ServerUnreachableError(AdapterError):
    """The model server does not answer: it is starting, or it has died."""

    code = grpc.StatusCode.UNAVAILABLE


class ServerError(AdapterError):
    """The model server refused; it says why, and its code is kept."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self._status = code

    @property
    def status(self) -> grpc.StatusCode:
        """The server's own code."""
        return self._status

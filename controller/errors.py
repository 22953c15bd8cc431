"""What can go wrong in the controller, as types.

The text of each is shown to users in status and Events, so it names the field and the way out.
"""

from __future__ import annotations


class ControllerError(Exception):
    """Base of everything the controller raises on its own behalf."""


class ConfigurationError(ControllerError):
    """The user's configuration (or the defaults file) cannot be used; names the key and the value."""


class InvalidSpecError(ControllerError):
    """The spec of an InferenceService or Predictor contradicts itself; names the fields."""


class InvalidRuntimeError(ControllerError):
    """The spec of a ServingRuntime or ClusterServingRuntime breaks a rule of the pods it would give."""


class MeshUnreachableError(ControllerError):
    """No mesh instance of the namespace answers: no runtime pod is ready, or none can be reached."""


class MeshCallError(ControllerError):
    """A mesh instance refused a management call.

    Attributes:
        code: name of the gRPC status code, for example `ALREADY_EXISTS`.
        details: what the instance said.
    """

    def __init__(self, method: str, address: str, code: str, details: str) -> None:
        self.code = code
        self.details = details
        super().__init__(f"{method} at {address} failed: {code}: {details}")


class NameTakenError(MeshCallError):
    """Another kind of object already owns the name in this mesh, or its model has other attributes."""

"""Everything a caller can be told: types with a gRPC code and, where waiting helps, how long to wait."""

from collections.abc import Sequence

from grpc import StatusCode

from store.records import Resources

RETRY_MS = 1_000
"""When a caller may try again where the mesh cannot say better."""


class ConfigError(Exception):
    """A setting of the process is missing or cannot be used; the text names it."""


class StartError(Exception):
    """The process cannot do what it must do before it is ready; the text says what."""


class MeshError(Exception):
    """A request that cannot be served; the text is for the user."""

    code = StatusCode.INTERNAL
    retry_after_ms: int | None = None
    metadata: Sequence[tuple[str, str]] = ()
    """For programs; goes to the caller as trailing metadata."""


class InvalidRequestError(MeshError):
    """The request itself is at fault."""

    code = StatusCode.INVALID_ARGUMENT


class ModelNotFoundError(MeshError):
    """No such model is registered."""

    code = StatusCode.NOT_FOUND

    def __init__(self, model_id: str) -> None:
        super().__init__(f"model not found: {model_id}")
        self.model_id = model_id


class VModelNotFoundError(MeshError):
    """No such vmodel exists."""

    code = StatusCode.NOT_FOUND

    def __init__(self, vmodel_id: str) -> None:
        super().__init__(f"vmodel not found: {vmodel_id}")


class ModelExistsError(MeshError):
    """The name is taken by something else."""

    code = StatusCode.ALREADY_EXISTS


class PreconditionError(MeshError):
    """The request does not fit what is there."""

    code = StatusCode.FAILED_PRECONDITION


class RegistryUnavailableError(MeshError):
    """The registry does not answer, so nothing can be changed or loaded."""

    code = StatusCode.UNAVAILABLE
    retry_after_ms: int | None = RETRY_MS


class RuntimeDownError(MeshError):
    """The model server is not there (yet, or again)."""

    code = StatusCode.UNAVAILABLE
    retry_after_ms: int | None = RETRY_MS


class NoCapacityError(MeshError):
    """There is no room for the model now, or never will be."""

    code = StatusCode.RESOURCE_EXHAUSTED
    retry_after_ms: int | None = RETRY_MS


class TooLargeError(NoCapacityError):
    """The model is larger than all the memory of an instance; waiting does not help."""

    retry_after_ms: int | None = None

    def __init__(self, size: Resources, capacity: Resources) -> None:
        super().__init__(
            f"no room for the model: it needs {size.memory} bytes, the whole capacity is {capacity.memory}"
        )
        self.size = size


class TooOldError(NoCapacityError):
    """A load that no request waits for would displace models that were used more recently."""


class NoHomeError(MeshError):
    """No running instance may hold models of this type.

    The controller recognises the text (see `docs/reference`): its beginning, and the label `_no_runtime` at
    its end where no configured runtime supports the type at all.
    """

    PREFIX = "There are no running instances that meet the label requirements of type "
    NO_RUNTIME = "_no_runtime"

    def __init__(self, model_type: str, required: Sequence[str]) -> None:
        super().__init__(f"{self.PREFIX}{model_type}: [{', '.join(required)}]")
        hopeless = self.NO_RUNTIME in required
        self.code = StatusCode.FAILED_PRECONDITION if hopeless else StatusCode.UNAVAILABLE
        self.retry_after_ms = None if hopeless else RETRY_MS


class DeadlineError(MeshError):
    """The caller's time is over."""

    code = StatusCode.DEADLINE_EXCEEDED


class RemovedError(MeshError):
    """The model was removed while it was being loaded."""

    code = StatusCode.ABORTED


class LoadFailedError(MeshError):
    """The model server, or what gets models for it, refused the model.

    The text is `<CODE>: <what the server said>`; the code for callers says whether the model is at fault
    (FAILED_PRECONDITION) or something that may pass.
    """

    PASSING = frozenset({StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED, StatusCode.DEADLINE_EXCEEDED})

    def __init__(self, cause: StatusCode, details: str) -> None:
        super().__init__(details if cause is StatusCode.UNKNOWN else f"{cause.name}: {details}")
        self.cause = cause
        self.code = cause if cause in self.PASSING else StatusCode.FAILED_PRECONDITION

    @classmethod
    def recorded(cls, text: str, cause: str) -> "LoadFailedError":
        """The same error again, from a failure record."""
        error = cls(StatusCode.__members__.get(cause, StatusCode.UNKNOWN), text)
        error.args = (text,)
        return error

# ruff: noqa: N818 -- the names are the reasons of the Kubernetes API, which clients know
"""Errors a Kubernetes API answers with, as types.

A caller decides by type (`except NotFound`), never by comparing numbers. Every error carries the fields of
the `Status` object that the API server sent, and turns back into one with `to_status`, so the in-memory API
server raises the same types that the HTTP client does.

`ApiError` is an answer of the server; `TransportError` means there was none. Both are `ClientError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from api.resource import Resource

JSON = dict[str, Any]


class ClientError(Exception):
    """A request to the API server did not do what was asked."""


class ConfigurationError(ClientError):
    """No usable kubeconfig or service account was found."""


class TransportError(ClientError):
    """No whole answer came from the API server: refused, reset, timed out or cut off. Worth trying again."""


class ApiError(ClientError):
    """The API server refused a request, or failed to serve it.

    Attributes:
        status: HTTP status code.
        reason: machine-readable reason, as in `Status.reason`.
        message: text for people.
        details: `Status.details`: name, group and kind of the object, causes, retryAfterSeconds.
    """

    STATUS: ClassVar[int] = 500
    REASON: ClassVar[str] = "InternalError"

    def __init__(
        self,
        message: str,
        *,
        details: JSON | None = None,
        status: int | None = None,
        reason: str | None = None,
    ) -> None:
        self.status = self.STATUS if status is None else status
        self.reason = self.REASON if reason is None else reason
        self.message = message
        self.details = details
        super().__init__(message)

    def __str__(self) -> str:
        return f"{self.message} ({self.reason or 'Unknown'}, {self.status})"

    @property
    def retry_after(self) -> float | None:
        """Seconds the server asks to wait before the next try; None when it does not say."""
        seconds = (self.details or {}).get("retryAfterSeconds")
        return float(seconds) if seconds else None

    def to_status(self) -> JSON:
        """Return the error as a Kubernetes `Status` object."""
        status: JSON = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.status,
        }
        if self.details:
            status["details"] = self.details
        return status


class _ObjectError(ApiError):
    """An error about one named object."""

    TEXT: ClassVar[str] = ""

    @classmethod
    def of(cls, resource: Resource, name: str, cause: str = "") -> Self:
        """Build the error with the wording and details the Kubernetes API server uses."""
        qualified = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
        details: JSON = {"name": name, "kind": resource.plural}
        if resource.group:
            details["group"] = resource.group
        return cls(cls.TEXT.format(resource=qualified, name=name, cause=cause), details=details)


class BadRequest(ApiError):
    """The request itself is malformed."""

    STATUS, REASON = 400, "BadRequest"


class Unauthorized(ApiError):
    """The credentials are missing, wrong or expired."""

    STATUS, REASON = 401, "Unauthorized"


class Forbidden(ApiError):
    """The credentials do not allow this (RBAC), or an admission plug-in refused it."""

    STATUS, REASON = 403, "Forbidden"


class NotFound(_ObjectError):
    """There is no such object, or no such resource type."""

    STATUS, REASON = 404, "NotFound"
    TEXT = '{resource} "{name}" not found'


class MethodNotAllowed(ApiError):
    """The resource does not support this verb."""

    STATUS, REASON = 405, "MethodNotAllowed"


class NotAcceptable(ApiError):
    """The server has no representation that the request accepts."""

    STATUS, REASON = 406, "NotAcceptable"


class AlreadyExists(_ObjectError):
    """An object of that name is there already."""

    STATUS, REASON = 409, "AlreadyExists"
    TEXT = '{resource} "{name}" already exists'


class Conflict(_ObjectError):
    """The object changed since it was read, or another field manager owns a field. Read again and retry."""

    STATUS, REASON = 409, "Conflict"
    TEXT = 'Operation cannot be fulfilled on {resource} "{name}": {cause}'


class Gone(ApiError):
    """The resourceVersion or continue token is too old (compacted). List again from the start."""

    STATUS, REASON = 410, "Expired"


class RequestEntityTooLarge(ApiError):
    """The object is larger than the server stores."""

    STATUS, REASON = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(ApiError):
    """The server does not know the content type of the body."""

    STATUS, REASON = 415, "UnsupportedMediaType"


class Invalid(_ObjectError):
    """The object breaks its schema or a validation rule; `details.causes` names the fields."""

    STATUS, REASON = 422, "Invalid"
    TEXT = '{resource} "{name}" is invalid: {cause}'


class TooManyRequests(ApiError):
    """The server sheds load; wait `retry_after` seconds."""

    STATUS, REASON = 429, "TooManyRequests"


class InternalError(ApiError):
    """The server failed."""

    STATUS, REASON = 500, "InternalError"


class ServiceUnavailable(ApiError):
    """The server is starting, stopping, or without its storage."""

    STATUS, REASON = 503, "ServiceUnavailable"


class Timeout(ApiError):
    """The server did not finish in time; the request may or may not have been done."""

    STATUS, REASON = 504, "Timeout"


_TYPES: tuple[type[ApiError], ...] = (
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    AlreadyExists,
    Conflict,
    Gone,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    Invalid,
    TooManyRequests,
    InternalError,
    ServiceUnavailable,
    Timeout,
)
_BY_REASON = {kind.REASON: kind for kind in _TYPES} | {"Gone": Gone, "ServerTimeout": Timeout}
# A 409 without a known reason means Conflict: that is the one a caller retries.
_BY_STATUS = {kind.STATUS: kind for kind in _TYPES}


def from_status(status: JSON) -> ApiError:
    """Return the typed error for a Kubernetes `Status` object; by its reason, else by its code."""
    code = int(status.get("code") or 500)
    reason = str(status.get("reason") or "")
    kind = _BY_REASON.get(reason) or _BY_STATUS.get(code) or ApiError
    message = str(status.get("message") or reason or f"the API server answered {code}")
    return kind(message, details=status.get("details"), status=code, reason=reason or kind.REASON)

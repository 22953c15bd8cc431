from __future__ import annotations

from typing import Any

import pytest

from api.core import DEPLOYMENT, SECRET
from controller.runtime import errors


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (400, "BadRequest", errors.BadRequest),
        (404, "NotFound", errors.NotFound),
        (409, "AlreadyExists", errors.AlreadyExists),
        (409, "Conflict", errors.Conflict),
        (409, "", errors.Conflict),
        (410, "Gone", errors.Gone),
        (410, "Expired", errors.Gone),
        (422, "Invalid", errors.Invalid),
        (429, "TooManyRequests", errors.TooManyRequests),
        (500, "InternalError", errors.InternalError),
        (504, "Timeout", errors.Timeout),
        (418, "Teapot", errors.ApiError),
    ],
)
def test_a_status_becomes_its_type(code: int, reason: str, kind: Any) -> None:
    error = errors.from_status({"kind": "Status", "code": code, "reason": reason, "message": "m"})
    assert type(error) is kind
    assert (error.status, error.message) == (code, "m")


@pytest.mark.parametrize(
    "error",
    [
        errors.NotFound.of(DEPLOYMENT, "d"),
        errors.Conflict.of(SECRET, "s", "it changed"),
        errors.TooManyRequests("slow down", details={"retryAfterSeconds": 3}),
    ],
)
def test_an_error_survives_the_wire(error: Any) -> None:
    copy = errors.from_status(error.to_status())
    assert type(copy) is type(error)
    assert copy.to_status() == error.to_status()


def test_the_text_names_the_object_as_kubectl_shows_it() -> None:
    error = errors.NotFound.of(DEPLOYMENT, "web")
    assert error.message == 'deployments.apps "web" not found'
    assert error.details == {"name": "web", "group": "apps", "kind": "deployments"}


def test_retry_after_is_read_from_the_details() -> None:
    assert errors.TooManyRequests("m", details={"retryAfterSeconds": 3}).retry_after == 3.0
    assert errors.TooManyRequests("m").retry_after is None

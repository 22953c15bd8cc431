"""Ending a call of the SPI with the right code and words where its work fails."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import grpc
import structlog

from adapters.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Awaitable

log = structlog.get_logger(__name__)

T = TypeVar("T")

# gRPC sends messages as a header, which has a limit; what a server prints may be longer.
_LONGEST_MESSAGE = 4000


async def answered(work: Awaitable[T], context: Any) -> T:
    """Awaits the work of a call and ends the call with the right code where it fails."""
    try:
        return await work
    except AdapterError as error:
        await _refuse(context, error.status, str(error))
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        code = grpc.StatusCode.RESOURCE_EXHAUSTED if full else grpc.StatusCode.INTERNAL
        await _refuse(context, code, f"the adapter cannot use the model volume: {error}")
    except Exception as error:
        log.exception("call failed unexpectedly")
        await _refuse(
            context, grpc.StatusCode.INTERNAL, f"the adapter failed: {type(error).__name__}: {error}"
        )


async def _refuse(context: Any, code: grpc.StatusCode, message: str) -> NoReturn:
    if len(message) > _LONGEST_MESSAGE:
        message = f"{message[:_LONGEST_MESSAGE]} …"
    await context.abort(code, message)
    raise AssertionError("abort returns never")

"""Structured logs: one JSON object a line on standard error, the form that log collectors read."""

import logging
import os
import sys

import structlog

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def configure(process: str) -> None:
    """Sets up structlog for this process; every line carries `process`.

    The environment variable LOG_LEVEL (DEBUG, INFO, WARNING, ERROR; by default INFO) chooses what is written.
    """
    asked = os.environ.get("LOG_LEVEL", "INFO").upper()
    level = asked if asked in _LEVELS else "INFO"
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    if level != asked:
        structlog.get_logger(__name__).warning("unknown LOG_LEVEL, using INFO", value=asked, known=_LEVELS)

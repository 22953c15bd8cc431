"""Memory of the process as a whole: what the C library keeps for threads that come and go."""

import contextlib
import ctypes

_M_ARENA_MAX = -8  # of glibc's malloc.h
_ARENAS = 2


def bound_arenas() -> None:
    """Has all threads allocate from two arenas; to be called before there are threads.

    glibc gives each new thread an arena of its own, up to eight a core, and what was freed in one stays with
    the process. Downloads pass through three pools of threads: ten megabytes more at the peak, and no gain.
    """
    # Another C library has no such function, and no such arenas.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)

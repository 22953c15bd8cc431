"""The memory that the container of this process has left."""

from __future__ import annotations

import re
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")  # a container's own, by version 2


def free_bytes(cgroup: Path = _CGROUP) -> int | None:
    """Bytes up to the container's limit, the page cache not counted as used; None where there is no limit."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = re.search(r"^anon (\d+)$", (cgroup / "memory.stat").read_text(), re.MULTILINE)
    except OSError:
        return None
    return max(int(limit) - int(used[1]), 0) if used and limit.isdecimal() else None

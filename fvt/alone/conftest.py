"""Cases of this part roll out Deployments: only one runtime is there to be rolled out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fvt import overlay
from fvt.cluster import KubectlError
from fvt.conftest import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fvt.cluster import Cluster


@pytest.fixture(scope="session", autouse=True)
def _only_mlserver(installed: Cluster, servers: frozenset[str]) -> Iterator[None]:
    others = [RUNTIMES[server] for server in servers - {"mlserver"}]
    for runtime in others:
        installed.patch("servingruntime", runtime, {"spec": {"disabled": True}})
    overlay.wait_settled(installed)
    yield
    for runtime in others:
        try:
            installed.patch("servingruntime", runtime, {"spec": {"disabled": None}})
        except KubectlError:
            return  # the last cases remove the installation

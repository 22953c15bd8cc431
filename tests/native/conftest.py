from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves tests with a cluster out, unless they are asked for: it needs root, packages and minutes."""
    if "native_cluster" not in config.option.markexpr:
        out = [item for item in items if item.get_closest_marker("native_cluster")]
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]

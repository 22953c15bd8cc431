"""The Triton adapter keeps the whole contract: minutes, so by `make test-conformance` only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.adapters.test_conformance import triton_not_passed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.e2e
@pytest.mark.timeout(600)
async def test_the_triton_adapter_keeps_the_contract(
    s3: Any, triton: Any, triton_root: Path, run_adapter: Callable[..., Any]
) -> None:
    assert await triton_not_passed(s3, triton, triton_root, run_adapter) == {}

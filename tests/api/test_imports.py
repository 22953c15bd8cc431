"""What the parts of `api` cost the processes that import them."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["api", "api.proto", "api.resource", "api.proto.model_mesh_pb2"])
def test_mesh_and_adapters_do_not_load_pydantic(module: str) -> None:
    code = f"import sys, {module}; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""The wheel works where other people's packages are installed too, `adapters` of PyPI among them."""

import os
import socket
import subprocess
from pathlib import Path

import pytest
import uv

ROOT = Path(__file__).parents[2]
ADAPTERS = "adapters==1.3.0"
"""A package of PyPI whose name one of our folders has."""


def _run(*command: str | Path, cwd: Path, **environment: str) -> str:
    finished = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout
    return finished.stdout


def _free_ports(number: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    try:
        return [str(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_installed_wheel_runs_a_local_cluster_beside_the_real_adapters_package(tmp_path: Path) -> None:
    tool = uv.find_uv_bin()
    _run(tool, "build", "--quiet", "--wheel", "--out-dir", tmp_path / "dist", ROOT, cwd=tmp_path)
    _run("maturin", "build", "--quiet", "--release", "--out", tmp_path / "dist", cwd=ROOT / "dataplane")
    (wheel,) = (tmp_path / "dist").glob("modelmesh-*.whl")
    (dataplane,) = (tmp_path / "dist").glob("modelmesh_dataplane-*.whl")
    bin_folder = tmp_path / "env/bin"
    python = bin_folder / "python"
    _run(tool, "venv", "--quiet", tmp_path / "env", cwd=tmp_path)
    _run(tool, "pip", "install", "--quiet", "-p", python, f"{wheel}[local]", dataplane, cwd=tmp_path)
    _run(tool, "pip", "install", "--quiet", "-p", python, "--no-deps", ADAPTERS, cwd=tmp_path)

    find = "import importlib.util as u; print(u.find_spec('adapters').origin, u.find_spec('api'))"
    where, ours = _run(python, "-c", find, cwd=tmp_path).split()
    assert where.endswith("site-packages/adapters/__init__.py")
    assert ours == "None", "the wheel must not put a package named `api` into site-packages"

    ports = dict(zip(("GRPC", "REST", "API"), _free_ports(3), strict=True))
    environment = {f"MODELMESH_LOCAL_{name}_PORT": port for name, port in ports.items()}
    environment["MODELMESH_HOME"] = str(tmp_path / "home")
    environment.setdefault(
        "MODELMESH_CACHE", os.environ.get("MODELMESH_CACHE", str(ROOT / ".modelmesh/cache"))
    )
    modelmesh = bin_folder / "modelmesh"
    try:
        _run(modelmesh, "local", "up", "--detach", "--no-samples", cwd=tmp_path, **environment)
        assert "modelmesh-controller" in _run(modelmesh, "local", "status", cwd=tmp_path, **environment)
    finally:
        _run(modelmesh, "local", "down", cwd=tmp_path, **environment)

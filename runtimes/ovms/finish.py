"""Ends the building of the environment of OpenVINO Model Server's stand-in; runs in its Python.

The stand-in and the protobuf modules that it needs are copied into the environment, so that it stands alone,
and ENVIRONMENT/bin/ovms-stand-in starts it.
"""

import shlex
import shutil
import site
import sys
from pathlib import Path

_HERE = Path(__file__).parent
_PROTOS = _HERE.parent.parent / "api" / "proto"


def main() -> None:
    """Copies the modules and writes the launcher."""
    packages = Path(site.getsitepackages()[0])
    shutil.copytree(
        _HERE / "ovms_stand_in",
        packages / "ovms_stand_in",
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    protos = packages / "api" / "proto"
    protos.mkdir(parents=True, exist_ok=True)
    for name in ("kfs_inference_v2", "tensorflow_serving"):
        for part in ("pb2", "pb2_grpc"):
            shutil.copy(_PROTOS / f"{name}_{part}.py", protos)
    launcher = Path(sys.prefix) / "bin" / "ovms-stand-in"
    launcher.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m ovms_stand_in "$@"\n')
    launcher.chmod(0o755)


if __name__ == "__main__":
    main()

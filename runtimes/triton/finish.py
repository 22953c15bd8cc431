"""Ends the building of Triton's environment; runs in its Python.

The wheel holds the server in parts: Triton loads backends from one folder and follows no links there, its
Python backend wants the stub of this Python beside it, and its libraries are on no path. So the backends are
gathered in ENVIRONMENT/backends, and ENVIRONMENT/bin/tritonserver starts the server with all of it.
"""

import os
import shlex
import shutil
import site
import sys
import sysconfig
from pathlib import Path

_HERE = Path(__file__).parent

# Address and ports come as variables too, so that an image's defaults can be moved like any other port.
_LAUNCHER = """\
#!/bin/sh
export LD_LIBRARY_PATH={libraries}
export PATH={programs}:"$PATH"
export PYTHONPATH={packages}
for face in http grpc metrics; do
  port=$(printenv "TRITON_$(echo $face | tr a-z A-Z)_PORT") && set -- "--$face-port=$port" "$@"
  [ -z "$TRITON_ADDRESS" ] || set -- "--$face-address=$TRITON_ADDRESS" "$@"
done
exec {server} --backend-directory={backends} "$@"
"""


def main() -> None:
    """Gathers the backends and writes the launcher."""
    packages = Path(site.getsitepackages()[0])
    wheel = packages / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        sys.exit(f"Triton's Python backend has no stub for Python {version}")
    backends = Path(sys.prefix) / "backends"
    shutil.copytree(wheel / "backends", backends, copy_function=os.link)
    os.link(stub, backends / "python" / stub.name)
    shutil.copytree(_HERE / "backends", backends, dirs_exist_ok=True)
    server = wheel / "bin" / "tritonserver"
    for program in (server, stub):
        program.chmod(0o755)
    programs = Path(sys.prefix) / "bin"
    launcher = programs / "tritonserver"
    values = {
        "libraries": f"{packages / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}",
        "programs": programs,
        "packages": packages,
        "server": server,
        "backends": backends,
    }
    launcher.write_text(_LAUNCHER.format(**{name: shlex.quote(str(value)) for name, value in values.items()}))
    launcher.chmod(0o755)


if __name__ == "__main__":
    main()

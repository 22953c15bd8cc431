"""Builds container images: `python -m images [--servers] [NAME ...]`."""

from __future__ import annotations

import argparse
import sys
import time

from images import bases, build, catalog, engine
from images.errors import ImageError
from local.home import Home


def main() -> int:
    """Build what the command line names, by default our images; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m images", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(catalog.every())}")
    parser.add_argument("--servers", action="store_true", help="build the model servers', etcd's and MinIO's")
    parser.add_argument(
        "--engine", default="", help="docker, podman or buildah (default: the first that works)"
    )
    parser.add_argument("--bases", default="auto", help="registry, debian, or auto: registry if one answers")
    parser.add_argument("--check", action="store_true", help="build nothing; say what this machine lacks")
    options = parser.parse_args()
    group = catalog.servers() if options.servers else catalog.ours()
    home = Home.from_environment()
    folder = home.root / "images"
    try:
        wanted = [catalog.find(name) for name in options.names] or group
        program = engine.find(options.engine)
        if options.check:
            bases.check(program, options.bases)
            return 0
        start = bases.find(program, home.root / "cache" / "images", options.bases)
        for image in wanted:
            began = time.monotonic()
            built = build.ensure(image, program, start, folder)
            took = f"built in {time.monotonic() - began:.0f} s" if built else "up to date"
            print(f"{image.reference:45} {build.size_mib(image, folder):5.0f} MiB  {took}", flush=True)
    except ImageError as error:
        sys.stderr.write(f"images: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

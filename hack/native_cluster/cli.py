"""The commands of `hack/native-cluster`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hack.native_cluster.cluster import Cluster
from hack.native_cluster.errors import NativeClusterError
from hack.native_cluster.paths import Layout


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    given = _parser().parse_args(arguments)
    layout = Layout.from_environment()
    try:
        return _run(given, Cluster(layout), layout)
    except NativeClusterError as error:
        print(f"native-cluster: {error}", file=sys.stderr)
        return 1


def _run(given: argparse.Namespace, cluster: Cluster, layout: Layout) -> int:
    match given.command:
        case "up":
            cluster.up()
        case "down":
            cluster.down()
        case "status":
            rows = cluster.status()
            for name, state in rows:
                print(f"{name:<24} {state}")
            return 0 if all(state == "ready" or state.startswith("running") for _, state in rows) else 1
        case "check":
            missing = cluster.missing()
            print("\n".join(missing) or "this machine can run the native cluster")
            return 1 if missing else 0
        case "load-image":
            for name in cluster.load_image([path.absolute() for path in given.archives]):
                print(f"loaded {name}")
        case "kubeconfig":
            print(layout.kubeconfig)
        case "exec":
            cluster.execute(_command(given.program))
    return 0


def _command(given: list[str]) -> list[str]:
    command = given[1:] if given[:1] == ["--"] else given
    if not command:
        raise NativeClusterError("exec needs a program: hack/native-cluster exec -- kubectl get pods")
    return command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hack/native-cluster",
        description="A one-node Kubernetes in Linux namespaces of its own: needs root, but no Docker",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="build what is missing, start what does not run, wait until all is ready")
    commands.add_parser("down", help="end everything and remove all files but built programs")
    commands.add_parser("status", help="show each part; status 0 where all are ready")
    commands.add_parser("check", help="say what this machine lacks; status 0 where it lacks nothing")
    load = commands.add_parser("load-image", help="load docker-archive files (docker save, buildah push)")
    load.add_argument("archives", nargs="+", type=Path, metavar="TAR")
    commands.add_parser("kubeconfig", help="print the path of the kubeconfig (it is of use inside: see exec)")
    execute = commands.add_parser(
        "exec", help="run a program in the cluster's network, with KUBECONFIG, kubectl, grpcurl and kustomize"
    )
    execute.add_argument("program", nargs=argparse.REMAINDER, metavar="-- PROGRAM [ARGUMENT ...]")
    return parser

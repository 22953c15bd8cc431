"""`modelmesh local`: the command line of the embedded mode."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from local import cluster, manifests, profiles
from local.errors import LocalError
from local.home import NAMESPACE, Home, Settings
from local.node import logs_of, without_proxy
from local.progress import ConsoleProgress

app = typer.Typer(
    help="The whole of Modelmesh on this machine, without Kubernetes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

GrpcPort = Annotated[
    int,
    typer.Option("--grpc-port", envvar="MODELMESH_LOCAL_GRPC_PORT", help="Port of inference by gRPC."),
]
RestPort = Annotated[
    int,
    typer.Option("--rest-port", envvar="MODELMESH_LOCAL_REST_PORT", help="Port of inference by REST."),
]
ApiPort = Annotated[
    int,
    typer.Option("--api-port", envvar="MODELMESH_LOCAL_API_PORT", help="Port of the Kubernetes API."),
]
_DEFAULTS = Settings()


@app.command()
def up(
    file: Annotated[
        list[str], typer.Option("--file", "-f", help="A manifest to apply; may be repeated.")
    ] = [],  # noqa: B006
    *,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it is up; `down` stops it.")
    ] = False,
    runtimes: Annotated[
        str,
        typer.Option(help="Server types whose shipped runtimes are made, such as mlserver,triton."),
    ] = ",".join(_DEFAULTS.runtimes),
    profile: Annotated[
        list[Path], typer.Option(help="The local profile of an image of your own; may be repeated.")
    ] = [],  # noqa: B006
    samples: Annotated[
        bool, typer.Option(help="Train the sample models and put them into the bucket.")
    ] = True,
    grpc_port: GrpcPort = _DEFAULTS.grpc_port,
    rest_port: RestPort = _DEFAULTS.rest_port,
    api_port: ApiPort = _DEFAULTS.api_port,
) -> None:
    """Start a cluster and keep it running until Ctrl-C, or until `down` with --detach."""
    home = Home.from_environment()
    settings = Settings(
        grpc_port=grpc_port,
        rest_port=rest_port,
        api_port=api_port,
        manifests=tuple(name if "://" in name else str(Path(name).absolute()) for name in file),
        profiles=tuple(str(path.absolute()) for path in profile),
        samples=samples,
        runtimes=tuple(filter(None, (name.strip() for name in runtimes.split(",")))),
    )
    list(manifests.runtimes(settings.runtimes))  # what is wrong is told before anything starts
    profiles.every(home.root, settings.profiles)
    progress = ConsoleProgress()
    typer.echo(f"Starting Modelmesh in {home.root}")
    process = cluster.start(home, settings, progress, lifeline=not detach)
    typer.echo(_greeting(home, settings))
    if detach:
        typer.echo("Stop it with: modelmesh local down")
        return
    typer.echo("Press Ctrl-C to stop it.")
    status = cluster.wait(process)
    if status:
        raise LocalError(f"the cluster ended with status {status}; its log is {home.supervisor_log}")


@app.command()
def down() -> None:
    """Stop the cluster; no process and no port stays in use."""
    home = Home.from_environment()
    if cluster.stop(home):
        typer.echo("Stopped.")
    else:
        typer.echo(f"No local cluster runs with home {home.root}.")


@app.command()
def status() -> None:
    """Show what runs."""
    home = Home.from_environment()
    state = home.read_state()
    settings = state.settings
    typer.echo(f"process    {state.pid}")
    typer.echo(f"ready      {'yes' if state.ready else 'no'}")
    typer.echo(_greeting(home, settings))
    if state.ready:
        for resource in ("pods", "inferenceservices"):
            typer.echo("")
            sys.stdout.flush()
            kubectl(home, "get", resource)


@app.command()
def logs(
    name: Annotated[
        str, typer.Argument(help="A pod, or the start of its name; the supervisor by default.")
    ] = "",
    container: Annotated[str, typer.Argument(help="One of its containers; all by default.")] = "",
) -> None:
    """Print logs of this run, or of the last one if none runs."""
    home = Home.from_environment()
    if not name:
        typer.echo(home.supervisor_log.read_text() if home.supervisor_log.exists() else "", nl=False)
        return
    folder = logs_of(home, NAMESPACE, "", "")
    pods = sorted(path.name for path in folder.glob("*") if path.name.startswith(name))
    if not pods:
        known = ", ".join(sorted(path.name for path in folder.glob("*"))) or "none"
        raise typer.BadParameter(f"no pod of that name has logs; there are: {known}")
    for pod in pods:
        for part in sorted((folder / pod).glob(container or "*")):
            for file in sorted(part.glob("*.log"), key=lambda path: int(path.stem)):
                typer.echo(f"==> {pod} {part.name} (start {file.stem}) <==")
                typer.echo(file.read_text(errors="replace"))


@app.command()
def kubeconfig() -> None:
    """Print the path of the kubeconfig: export KUBECONFIG=$(modelmesh local kubeconfig)."""
    typer.echo(str(Home.from_environment().kubeconfig))


@app.command()
def put(
    source: Annotated[Path, typer.Argument(exists=True, help="A model's file or folder.")],
    path: Annotated[
        str, typer.Argument(help="The path that InferenceServices name; by default the source's name.")
    ] = "",
) -> None:
    """Store a model in the bucket of the cluster's S3 server (storage key localMinIO)."""
    from local import samples  # noqa: PLC0415 -- as for the quickstart

    state = Home.from_environment().read_state()
    if not state.s3_endpoint:
        raise LocalError("the cluster is still starting")
    # `.` and `..` have their name in the path alone; a link keeps its own.
    name = path.strip("/") or Path(os.path.normpath(source.absolute())).name
    for key in samples.upload(source, state.s3_endpoint, name):
        typer.echo(f"stored {key}")


@app.command()
def quickstart(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the cluster running at the end.")] = False,
    digits: Annotated[int, typer.Option(min=1, max=1797, help="How many random digits to compare.")] = 100,
    seed: Annotated[int, typer.Option(help="Chooses the digits; by default a new one each time.")] = -1,
    grpc_port: GrpcPort = _DEFAULTS.grpc_port,
    rest_port: RestPort = _DEFAULTS.rest_port,
    api_port: ApiPort = _DEFAULTS.api_port,
) -> None:
    """Do the tutorial: deploy a model, ask it by gRPC and REST, and check every answer."""
    from local import quickstart as tutorial  # noqa: PLC0415 -- the guardian, which starts here too, stays small

    settings = Settings(grpc_port=grpc_port, rest_port=rest_port, api_port=api_port)
    options = tutorial.Options(keep=keep, digits=digits, seed=seed if seed >= 0 else None)
    raise typer.Exit(tutorial.run(Home.from_environment(), settings, options))


@app.command(hidden=True)
def supervise(settings: str, *, lifeline: bool = False) -> None:
    """Run the cluster itself; `up` starts this."""
    cluster.supervise(Home.from_environment(), settings, lifeline=lifeline)


def kubectl(home: Home, *arguments: str) -> int:
    """Run kubectl against the cluster of `home`, on this terminal; return its exit status."""
    from local import tools  # noqa: PLC0415 -- as for the quickstart

    program = tools.ensure(tools.KUBECTL, home.tools)
    environment = {**os.environ, **without_proxy(os.environ), "KUBECONFIG": str(home.kubeconfig)}
    return subprocess.run([program, *arguments], env=environment, check=False).returncode  # noqa: S603


def _greeting(home: Home, settings: Settings) -> str:
    ports = asdict(settings)
    return "\n".join(
        (
            f"gRPC       localhost:{ports['grpc_port']}",
            f"REST       http://localhost:{ports['rest_port']}",
            f"kubectl    export KUBECONFIG={home.kubeconfig}",
        ),
    )

"""Entry point of `modelmesh conformance`."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from grpc import aio

from modelmesh.conformance import report
from modelmesh.conformance.checks import Verdict
from modelmesh.conformance.inference import V2_INFER, Inference, read_request
from modelmesh.conformance.run import ModelUnderTest, Run
from modelmesh.conformance.suite import CHECKS, run_suite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelmesh.conformance.checks import Check, Result

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

_LAST_PORT = 65535
_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1))


@app.command()
def conformance(
    endpoint: Annotated[
        str,
        typer.Argument(help="Where the runtime answers the SPI: port:8085, HOST:PORT or unix:/PATH."),
    ] = "",
    *,
    model_path: Annotated[
        str, typer.Option(help="modelPath of a model that the runtime can load, as the runtime sees it.")
    ] = "",
    model_type: Annotated[str, typer.Option(help="Name of the model's format, such as sklearn.")] = "",
    model_key: Annotated[
        str, typer.Option(help="JSON object with further fields of modelKey, such as storage_key.")
    ] = "",
    broken_path: Annotated[
        str, typer.Option(help="modelPath of something that is there but cannot be loaded.")
    ] = "",
    infer: Annotated[
        Path | None,
        typer.Option(
            help="A request for the model: JSON as for V2's REST, or for --infer-method a message's bytes."
        ),
    ] = None,
    infer_method: Annotated[
        str, typer.Option(help="gRPC method of the request, as package.Service/Method.")
    ] = V2_INFER,
    data_endpoint: Annotated[
        str, typer.Option(help="Where the runtime answers inference; by default at ENDPOINT.")
    ] = "",
    check: Annotated[
        list[str], typer.Option("--check", help="Make only this check and what it needs; may be repeated.")
    ] = [],  # noqa: B006 - typer's way
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that an answer may take.")] = 60.0,
    start_timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds until the runtime must be READY.")
    ] = 60.0,
    list_checks: Annotated[
        bool, typer.Option("--list", help="Print every check and what it demands, and end.")
    ] = False,
) -> None:
    """Tell whether a runtime keeps the contract of the SPI (mmesh.ModelRuntime).

    Nobody else may use the runtime meanwhile: its models are removed. Exit status: 0 it keeps the contract,
    1 it does not, 3 nothing was found wrong but checks could not be made, 2 wrong command line.
    """
    if list_checks:
        for text in report.listing(CHECKS):
            typer.echo(text)
        return
    if not endpoint:
        _wrong("ENDPOINT is missing: port:8085, HOST:PORT or unix:/PATH", "ENDPOINT")
    if not model_path and (model_type or model_key or broken_path or infer):
        _wrong("is missing: the other options say more about a model", "--model-path")
    try:
        model = ModelUnderTest.of(model_path, model_type, model_key, broken_path) if model_path else None
    except ValueError as error:
        _wrong(f"is not a JSON object: {error}", "--model-key")
    request = None
    if infer:
        try:
            request = read_request(infer, infer_method)
        except (OSError, ValueError) as error:
            _wrong(f"{infer}: {error}", "--infer")
    targets = target(endpoint, "ENDPOINT"), target(data_endpoint or endpoint, "--data-endpoint")
    results = asyncio.run(
        _run(targets, _chosen(check), model, (infer_method, request), seconds=(timeout, start_timeout))
    )
    typer.echo(report.summary(results, all_made=len(results) == len(CHECKS)))
    raise typer.Exit(report.exit_status(results))


async def _run(
    targets: tuple[str, str],
    chosen: Sequence[Check],
    model: ModelUnderTest | None,
    request: tuple[str, bytes | None],
    *,
    seconds: tuple[float, float],
) -> list[Result]:
    """Makes the checks and prints each result as it comes."""
    results: list[Result] = []
    spi, data = targets
    async with (
        aio.insecure_channel(spi, options=_OPTIONS) as channel,
        aio.insecure_channel(data, options=_OPTIONS) as data_channel,
    ):
        run = Run(channel, model, timeout_s=seconds[0], start_s=seconds[1])
        method, message = request
        if message is not None:
            run.inference = Inference(data_channel, method, message)
        typer.echo(f"Conformance of the runtime at {spi}; it has {seconds[1]:g} s to be READY")
        async for result in run_suite(run, chosen):
            before = results[-1].check if results else None
            if result.needed != CHECKS[0].name:
                typer.echo(f"{report.heading(result.check, before)}{report.line(result)}")
            results.append(result)
        if results[0].verdict is not Verdict.PASSED and len(results) > 1:
            typer.echo(f"\nAll other checks need {CHECKS[0].name}.")
    return results


def target(endpoint: str, where: str) -> str:
    """Returns the gRPC target of an endpoint; ends the command where it is none, which `where` had."""
    if endpoint.startswith("unix:") and len(endpoint) > len("unix:"):
        return endpoint
    found = re.fullmatch(r"(?:port:|(?:tcp:)?([^\s:/]+|\[[0-9a-fA-F:.]+\]):)([0-9]{1,5})", endpoint)
    if not found or not 0 < int(found[2]) <= _LAST_PORT:
        _wrong(f"{endpoint!r} must be port:NUMBER, HOST:PORT or unix:/PATH", where)
    return f"{found[1] or '127.0.0.1'}:{found[2]}"


def _chosen(names: Sequence[str]) -> Sequence[Check]:
    known = {check.name: check for check in CHECKS}
    for name in names:
        if name not in known:
            _wrong(f"there is no check {name!r}; `modelmesh conformance --list` names all", "--check")
    return [known[name] for name in names] or CHECKS


def _wrong(message: str, where: str) -> NoReturn:
    raise typer.BadParameter(message, param_hint=where)


def main(argv: Sequence[str]) -> int:
    """Runs the command line and returns its exit status."""
    try:
        result = app(list(argv), prog_name="modelmesh conformance", standalone_mode=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return int(result or 0)

"""`modelmesh explain` and `modelmesh top`: what an instance tells of models, of itself and of its mesh."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import grpc

from api.proto.model_mesh_pb2 import (
    ExplainInstanceRequest,
    ExplainMeshRequest,
    ExplainModelRequest,
    InstanceExplanation,
    InstanceInfo,
    MeshExplanation,
    ModelExplanation,
)
from api.proto.model_mesh_pb2_grpc import ModelMeshStub

TARGET = "localhost:8033"
TIMEOUT_SECONDS = 10.0
DAY_SECONDS = 86_400
CLEAR = "\x1b[2J\x1b[H"
MIB = 1 << 20


def explain(argv: Sequence[str]) -> int:
    """Runs `modelmesh explain`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="modelmesh explain", description=_first_line(explain_model.__doc__))
    parser.add_argument("kind", choices=["model", "instance"])
    parser.add_argument("name", nargs="?", default="", help="of a model, vmodel or instance")
    _add_target(parser)
    arguments = parser.parse_args(argv)
    if arguments.kind == "model" and not arguments.name:
        parser.error("the name of a model or vmodel is missing")
    show = explain_model if arguments.kind == "model" else explain_instance
    return _asking(arguments.target, lambda stub: sys.stdout.write(show(stub, arguments.name)))


def top(argv: Sequence[str]) -> int:
    """Runs `modelmesh top`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="modelmesh top", description="The instances of a mesh.")
    parser.add_argument("--once", action="store_true", help="print once, and end")
    parser.add_argument("--seconds", type=float, default=2.0, help="between two looks")
    _add_target(parser)
    arguments = parser.parse_args(argv)
    if not 0 < arguments.seconds <= DAY_SECONDS:
        parser.error(f"--seconds: {arguments.seconds:g} is not above 0 and at most {DAY_SECONDS}")

    def show(stub: Any) -> None:
        while True:
            text = mesh_text(stub.explainMesh(ExplainMeshRequest(), timeout=TIMEOUT_SECONDS), _now())
            sys.stdout.write(text if arguments.once else CLEAR + text)
            sys.stdout.flush()
            if arguments.once:
                return
            time.sleep(arguments.seconds)

    try:
        return _asking(arguments.target, show)
    except KeyboardInterrupt:
        return 0


def explain_model(stub: Any, name: str) -> str:
    """Where a model is and why, what happened to it, and what would have to change."""
    return model_text(stub.explainModel(ExplainModelRequest(name=name), timeout=TIMEOUT_SECONDS))


def explain_instance(stub: Any, name: str) -> str:
    """What an instance holds, in the order of eviction."""
    answer = stub.explainInstance(ExplainInstanceRequest(instanceId=name), timeout=TIMEOUT_SECONDS)
    return instance_text(answer, _now())


def model_text(answer: ModelExplanation) -> str:
    """A model for a terminal."""
    lines = [answer.summary, ""]
    facts = {
        "vmodel": answer.vModelId,
        "type": answer.type,
        "size": f"{answer.size / MIB:.1f} MiB" if answer.size else "not known before it is loaded",
        "last used": _when(answer.lastUsed),
        "a copy more": f"on {answer.placement}: {answer.reason}" if answer.placement else answer.reason,
        "to do": answer.remedy,
    }
    lines += [f"  {name + ':':13}{value}" for name, value in facts.items() if value]
    lines += [f"  {'failed:':13}{error}" for error in answer.status.errors]
    if answer.events:
        lines += ["", "  what the instances remember:"]
        lines += [
            f"    {_when(each.time)}  {each.location}  {each.what}: {each.why}" for each in answer.events
        ]
    return "\n".join(lines) + "\n"


def instance_text(answer: InstanceExplanation, now: float) -> str:
    """An instance for a terminal; `now` in seconds since 1970."""
    lines = [*_table([answer.instance], now), "", "  models, the first to be evicted first:"]
    for model in answer.models:
        wishes = " pinned" * model.pinned + (f" priority {model.priority}" if model.priority else "")
        lines.append(
            f"    {model.modelId:<40} {model.phase:<8} {model.size / MIB:9.1f} MiB  "
            f"unused {_age(model.lastUsed, now):>8}  {model.rpm:>7} requests/min{wishes}"
        )
    return "\n".join(lines) + "\n"


def mesh_text(answer: MeshExplanation, now: float) -> str:
    """A mesh for a terminal; `now` in seconds since 1970."""
    counts = (
        f"{answer.registered} models registered, {answer.loaded} loaded, {answer.failed} with a failure; "
        f"{answer.vModels} vmodels"
    )
    return "\n".join([counts, "", *_table(answer.instances, now)]) + "\n"


def _table(instances: Sequence[InstanceInfo], now: float) -> list[str]:
    head = ("USED", 22), ("COPIES", 8), ("LOADS", 10), ("REQ/MIN", 9), ("CACHE AGE", 11)
    rows = [f"  {'INSTANCE':<14}{'STATE':<10}" + "".join(f"{title:>{width}}" for title, width in head)]
    for each in instances:
        state = "leaving" if each.leaving else "ready" if each.ready else "starting"
        share = each.used / each.capacity if each.capacity else 0
        used = f"{each.used / MIB:.0f}/{each.capacity / MIB:.0f} MiB {share:4.0%}"
        loads = f"{each.loading} of {each.loadSlots}"
        rows.append(
            f"  {each.instanceId:<14}{state:<10}{used:>22}{each.copies:>8}{loads:>10}{each.rpm:>9}"
            f"{_age(each.oldestUse, now):>11}{'  leader' if each.leader else ''}"
        )
    return rows


def _asking(target: str, work: Callable[[Any], object]) -> int:
    # What an instance holds may be more than the 4 MiB that gRPC takes by default.
    options = (("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1))
    with grpc.insecure_channel(target, options=options) as channel:
        try:
            work(ModelMeshStub(channel))
        except grpc.RpcError as error:
            sys.stderr.write(f"modelmesh: {target}: {error.code().name}: {error.details()}\n")
            return 1
    return 0


def _add_target(parser: argparse.ArgumentParser) -> None:
    text = f"gRPC port of any instance ({TARGET})"
    parser.add_argument("--target", default=TARGET, metavar="HOST:PORT", help=text)


def _when(milliseconds: int) -> str:
    if not milliseconds:
        return ""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _age(milliseconds: int, now: float) -> str:
    if not milliseconds:
        return "-"
    seconds = max(0, round(now - milliseconds / 1000))
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _now() -> float:
    return time.time()


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0]

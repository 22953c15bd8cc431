"""The byte path of one instance without its policy, in a process of its own, for `bench.dataplane`.

It routes models, each with an alias, to one place: its own model server, or a peer. With `--churn` they move
all the time, and one that is asked for while it is nowhere is loaded. Once it serves, it prints one line of
JSON; it ends when its standard input is closed.
"""

import argparse
import asyncio
import itertools
import json
import random
import sys
import threading

import psutil
from modelmesh_dataplane import CopyRoute, Dataplane, Miss

INFER = "inference.GRPCInferenceService/ModelInfer"
MODELS = 20_000
BATCH = 1000
TICK_SECONDS = 0.01


def concrete(number: int) -> str:
    """The id that the alias `model-<number>` stands for."""
    return f"model-{number}__isvc-0123456789"


class Policy:
    """Routes, and in place of the real policy whatever answers misses and moves models about."""

    def __init__(self, dataplane: Dataplane, peer: str | None, runtime: str | None, models: int) -> None:
        self._dataplane = dataplane
        # An instance without a server of its own knows the peer alone.
        self._here = [CopyRoute("here", None)] if runtime else []
        self._there = [CopyRoute("there", peer)] if peer else []
        self._models = models
        self._generations = itertools.count(1)

    def route_all(self) -> None:
        """Routes all models to the own server, else to the peer."""
        route = self._here or self._there
        for first in range(0, self._models, BATCH):
            numbers = range(first, min(first + BATCH, self._models))
            self._dataplane.update(
                next(self._generations),
                {concrete(number): route for number in numbers},
                {f"model-{number}": [(concrete(number), 100)] for number in numbers},
            )

    def answer(self) -> None:
        """Loads what is asked for."""
        for event in self._dataplane.take():
            if isinstance(event, Miss):
                self._dataplane.update(next(self._generations), {event.model_id: self._here}, {})
                event.serve()

    def move(self, count: int) -> None:
        """Moves some models to another place, or nowhere."""
        places = [place for place in (self._here, self._there, None) if place != []]
        moved = {concrete(random.randrange(self._models)): random.choice(places) for _ in range(count)}  # noqa: S311
        self._dataplane.update(next(self._generations), moved, {})

    async def run(self, churn: int) -> None:
        """Answers misses and moves so many models a second, for ever."""
        asyncio.get_running_loop().add_reader(self._dataplane.fileno(), self.answer)
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._dataplane.usage()  # as the policy does; the byte path keeps what it has not told
            if churn:
                self.move(max(1, round(churn * TICK_SECONDS)))


def main() -> None:
    """Serves until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", help="host:port of the model server")
    parser.add_argument("--peer", help="host:port of the peer that has all copies")
    parser.add_argument("--models", type=int, default=MODELS)
    parser.add_argument("--churn", type=int, default=0, help="models that move in a second")
    arguments = parser.parse_args()
    # What every policy has: the interpreter, its event loop and the module.
    loop = asyncio.new_event_loop()
    before = psutil.Process().memory_info().rss
    dataplane = Dataplane(
        instance_id="here",
        runtime_target=f"tcp:{arguments.runtime}" if arguments.runtime else None,
        grpc_listen=["127.0.0.1:0"],
        peer_listen="127.0.0.1:0",
    )
    dataplane.start()
    dataplane.set_rpcs({INFER: ([1], True)}, allow_other=True)
    dataplane.set_methods({INFER: [1]}, allow_any=False)
    policy = Policy(dataplane, arguments.peer, arguments.runtime, arguments.models)
    policy.route_all()
    addresses = dict(dataplane.addresses())
    print(json.dumps({"rss_before": before, **addresses}), flush=True)
    if arguments.churn:
        threading.Thread(
            target=loop.run_until_complete, args=[policy.run(arguments.churn)], daemon=True
        ).start()
    sys.stdin.read()
    dataplane.stop(0)


if __name__ == "__main__":
    main()

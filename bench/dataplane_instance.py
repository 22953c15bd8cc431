"""The byte path of one instance without its policy, in a process of its own, for `bench.dataplane`.

It routes 20,000 models, each with an alias, to one place: its own model server, or a peer. Once it serves, it
prints one line of JSON; it ends when its standard input is closed.
"""

import argparse
import asyncio
import json
import sys

import psutil
from modelmesh_dataplane import CopyRoute, Dataplane

INFER = "inference.GRPCInferenceService/ModelInfer"
MODELS = 20_000


def main() -> None:
    """Serves until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", help="host:port of the model server")
    parser.add_argument("--peer", help="host:port of the peer that has all copies")
    arguments = parser.parse_args()
    # What every policy has: the interpreter, its event loop and the module.
    asyncio.new_event_loop().close()
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
    # A peer is called so, as the copy of its own server has no address.
    route = [CopyRoute("there", arguments.peer) if arguments.peer else CopyRoute("here", None)]
    for first in range(0, MODELS, 1000):
        names = range(first, first + 1000)
        dataplane.update(
            1 + first,
            {f"model-{number}__isvc-0123456789": route for number in names},
            {f"model-{number}": [(f"model-{number}__isvc-0123456789", 100)] for number in names},
        )
    addresses = dict(dataplane.addresses())
    print(json.dumps({"rss_before": before, **addresses}), flush=True)
    sys.stdin.read()
    dataplane.stop(0)


if __name__ == "__main__":
    main()

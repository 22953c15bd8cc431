"""A server with a protocol of its own: it opens dictionaries, JSON files of words, and looks words up.

It stands for the server that you already have: it knows nothing of ModelMesh. `adapter.py` puts it behind the
mesh. Environment: PORT (9000).
"""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import dictionary_pb2
import dictionary_pb2_grpc
import grpc


class Server(dictionary_pb2_grpc.DictionaryServicer, dictionary_pb2_grpc.AdminServicer):
    """Both services."""

    def __init__(self) -> None:
        self._open: dict[str, dict[str, str]] = {}

    def Define(self, request: Any, context: Any) -> dictionary_pb2.DefineResponse:
        """Looks a word up."""
        words = self._open.get(request.dictionary)
        if words is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"dictionary {request.dictionary} is not open")
        if request.word not in words:
            context.abort(
                grpc.StatusCode.OUT_OF_RANGE, f"the dictionary does not have the word {request.word!r}"
            )
        return dictionary_pb2.DefineResponse(definition=words[request.word])

    def Open(self, request: Any, context: Any) -> dictionary_pb2.OpenResponse:
        """Reads a file."""
        try:
            content = Path(request.path).read_bytes()
            words = json.loads(content)
        except (OSError, ValueError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"cannot open {request.path}: {error}")
        if not isinstance(words, dict):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a dictionary is a JSON object of words")
        self._open[request.name] = words
        return dictionary_pb2.OpenResponse(bytes=2 * len(content))

    def Close(self, request: Any, context: Any) -> dictionary_pb2.CloseResponse:
        """Forgets a dictionary."""
        if self._open.pop(request.name, None) is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"dictionary {request.name} is not open")
        return dictionary_pb2.CloseResponse()

    def List(self, request: Any, context: Any) -> dictionary_pb2.ListResponse:
        """Names what is open."""
        return dictionary_pb2.ListResponse(names=sorted(self._open), version="3.1")


def main() -> None:
    """Serves until SIGTERM."""
    server = grpc.server(ThreadPoolExecutor(max_workers=8), options=[("grpc.so_reuseport", 0)])
    implementation = Server()
    dictionary_pb2_grpc.add_DictionaryServicer_to_server(implementation, server)
    dictionary_pb2_grpc.add_AdminServicer_to_server(implementation, server)
    server.add_insecure_port(f"127.0.0.1:{os.environ.get('PORT', '9000')}")
    server.start()
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
    server.stop(grace=5).wait()


if __name__ == "__main__":
    main()

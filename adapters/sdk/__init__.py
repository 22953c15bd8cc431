"""The SDK that adapters are written with: subclass `ServerAdapter` (or `V2Server`), the rest is here.

It serves the management SPI, pulls models, lets one thing happen to a model at a time, honours cancellation,
purges before READY, follows the model server through restarts, and turns failures into gRPC codes.
"""

from adapters.sdk.adapter import V2_METHODS, Model, ServerAdapter
from adapters.sdk.grpc_server import GrpcServer
from adapters.sdk.serve import serve
from adapters.sdk.settings import Settings
from adapters.sdk.v2_server import V2Server

__all__ = ["V2_METHODS", "GrpcServer", "Model", "ServerAdapter", "Settings", "V2Server", "serve"]

"""Old names of the management API, which old clients still use: the messages are the same."""

from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from api.proto import model_mesh_pb2_grpc

SERVICE = "mmesh.ModelMesh"
LEGACY_SERVICE = "com.ibm.watson.tas.proto.TasRuntime"
LEGACY_METHODS = {"addModel": "registerModel", "deleteModel": "unregisterModel"}

Handlers = dict[str, "grpc.RpcMethodHandler[Any, Any]"]


class LegacyHandler(grpc.GenericRpcHandler):
    """Answers under the old names what a servicer answers under the new ones."""

    def __init__(self, servicer: model_mesh_pb2_grpc.ModelMeshServicer) -> None:
        seen = _Handlers()
        model_mesh_pb2_grpc.add_ModelMeshServicer_to_server(servicer, seen)  # type: ignore[arg-type]
        self._handlers: Handlers = {}
        for name, handler in seen.handlers.items():
            self._handlers[f"/{LEGACY_SERVICE}/{name}"] = handler
        for old, new in LEGACY_METHODS.items():
            for service in (SERVICE, LEGACY_SERVICE):
                self._handlers[f"/{service}/{old}"] = seen.handlers[new]

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Finds the method."""
        return self._handlers.get(handler_call_details.method)


class _Handlers:
    """Takes the place of a server in the generated code, to learn a servicer's methods."""

    def __init__(self) -> None:
        self.handlers: Handlers = {}

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """What old generated code calls; `add_registered_method_handlers` says the same."""

    def add_registered_method_handlers(
        self, _service_name: str, method_handlers: "Mapping[str, grpc.RpcMethodHandler[Any, Any]]"
    ) -> None:
        self.handlers.update(method_handlers)

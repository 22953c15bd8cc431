"""Asking models by gRPC and REST, as clients do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import httpx

from api.proto import kfs_inference_v2_pb2 as v2
from api.proto import kfs_inference_v2_pb2_grpc as v2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Address(Protocol):
        """Where a port is reached."""

        def lost(self) -> bool:
            """Say whether an error that was seen just now may be the connection's."""

        def address(self) -> str:
            """Return `host:port`."""


T = TypeVar("T")
EIGHT = [
    *(0.0, 0.0, 1.0, 11.0, 14.0, 15.0, 3.0, 0.0),
    *(0.0, 1.0, 13.0, 16.0, 12.0, 16.0, 8.0, 0.0),
    *(0.0, 8.0, 16.0, 4.0, 6.0, 16.0, 5.0, 0.0),
    *(0.0, 5.0, 15.0, 11.0, 13.0, 14.0, 0.0, 0.0),
    *(0.0, 0.0, 2.0, 12.0, 16.0, 13.0, 0.0, 0.0),
    *(0.0, 0.0, 0.0, 13.0, 16.0, 16.0, 6.0, 0.0),
    *(0.0, 0.0, 0.0, 16.0, 16.0, 16.0, 7.0, 0.0),
    *(0.0, 0.0, 0.0, 11.0, 13.0, 12.0, 1.0, 0.0),
]
"""The digit of the tutorial, 8 by 8 pixels of 0 to 16."""

_RECONNECT_SECONDS = 60
_ANSWER_SECONDS = 60


class FixedAddress:
    """A port that is reached without a forward, such as that of a load balancer."""

    def __init__(self, address: str) -> None:
        self._address = address

    def lost(self) -> bool:
        """Say no."""
        return False

    def address(self) -> str:
        """Return `host:port`."""
        return self._address


class Inference:
    """The inference endpoint of a namespace."""

    def __init__(self, grpc_port: Address, rest_port: Address) -> None:
        self._grpc = grpc_port
        self._rest = rest_port

    def infer(
        self, model: str, values: list[float], *, tensor: str = "predict", **headers: str
    ) -> v2.ModelInferResponse:
        """Send one row of FP32 by the V2 protocol; headers with `_` for `-`.

        Raises:
            grpc.RpcError: what the endpoint answered.
        """
        request = v2.ModelInferRequest(model_name=model)
        row = request.inputs.add(name=tensor, shape=[1, len(values)], datatype="FP32")
        row.contents.fp32_contents.extend(values)
        metadata = tuple((name.replace("_", "-"), text) for name, text in headers.items())

        def ask(channel: grpc.Channel) -> v2.ModelInferResponse:
            stub = v2_grpc.GRPCInferenceServiceStub(channel)
            return stub.ModelInfer(request, timeout=_ANSWER_SECONDS, metadata=metadata)

        return self._by_grpc(ask)

    def metadata(self, model: str) -> v2.ModelMetadataResponse:
        """Ask what tensors a model takes and gives."""

        def ask(channel: grpc.Channel) -> v2.ModelMetadataResponse:
            stub = v2_grpc.GRPCInferenceServiceStub(channel)
            return stub.ModelMetadata(v2.ModelMetadataRequest(name=model), timeout=_ANSWER_SECONDS)

        return self._by_grpc(ask)

    def call(self, method: str, request: bytes, **headers: str) -> bytes:
        """Send a message of any unary method, and return the answer's bytes."""
        metadata = tuple((name.replace("_", "-"), text) for name, text in headers.items())

        def ask(channel: grpc.Channel) -> bytes:
            send: Any = channel.unary_unary(method, None, None)
            answer: bytes = send(request, timeout=_ANSWER_SECONDS, metadata=metadata)
            return answer

        return self._by_grpc(ask)

    def rest(self, model: str, *tensors: dict[str, Any]) -> httpx.Response:
        """Ask by REST; a tensor has name, shape, datatype and data."""
        return self._by_rest("POST", f"/v2/models/{model}/infer", {"inputs": list(tensors)})

    def rest_row(self, model: str, values: list[float], tensor: str = "predict") -> httpx.Response:
        """Ask by REST with one row of FP32."""
        shape = [1, len(values)]
        return self.rest(model, {"name": tensor, "shape": shape, "datatype": "FP32", "data": values})

    def rest_get(self, path: str) -> httpx.Response:
        """Get a page of the REST endpoint."""
        return self._by_rest("GET", path, None)

    def digit(self, model: str) -> int:
        """Return the label that a digit model gives to the tutorial's eight."""
        return int(self.infer(model, EIGHT).outputs[0].contents.int64_contents[0])

    def _by_grpc(self, ask: Callable[[grpc.Channel], T]) -> T:
        deadline = time.monotonic() + _RECONNECT_SECONDS
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        while True:
            with grpc.insecure_channel(self._grpc.address(), options) as channel:
                try:
                    return ask(channel)
                except grpc.RpcError:
                    # Only what a lost forward explains is asked again: errors of the mesh are what is tested.
                    if time.monotonic() > deadline or not self._grpc.lost():
                        raise

    def _by_rest(self, method: str, path: str, body: object) -> httpx.Response:
        deadline = time.monotonic() + _RECONNECT_SECONDS
        while True:
            url = f"http://{self._rest.address()}{path}"
            try:
                return httpx.request(method, url, json=body, timeout=_ANSWER_SECONDS, trust_env=False)
            except httpx.TransportError:
                if time.monotonic() > deadline or not self._rest.lost():
                    raise

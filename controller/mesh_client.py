"""The controller's side of `mmesh.ModelMesh`: calls to whichever mesh instance of a namespace answers.

All instances are equal. Where they are is read from the Service's Endpoints object at each call, addresses
and ports, so nothing needs to be told when pods come and go; channels live as long as their address does.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import grpc.aio

from api.proto.model_mesh_pb2_grpc import ModelMeshStub
from controller.errors import MeshCallError, MeshUnreachableError, NameTakenError
from controller.runtime import fence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from api.core import Endpoints
    from api.proto import model_mesh_pb2 as pb

TIMEOUT_S = 10.0
_CHANNEL_OPTIONS = (
    # A pod that just started answers soon: the default back-off of up to two minutes would hide it.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class Mesh(Protocol):
    """The management API of one namespace's mesh.

    Every method raises MeshUnreachableError where no instance answers and MeshCallError where one refused;
    those that change something WriteRefusedError where this process may not write any more.
    """

    async def set_vmodel(self, request: pb.SetVModelRequest) -> pb.VModelStatusInfo:
        """Creates or moves a vmodel; NameTakenError where another owner has the name."""
        ...

    async def get_vmodel_status(self, request: pb.GetVModelStatusRequest) -> pb.VModelStatusInfo:
        """Returns a vmodel's status; an unknown one gives an empty message."""
        ...

    async def delete_vmodel(self, request: pb.DeleteVModelRequest) -> None:
        """Deletes a vmodel, where it exists and has the owner."""
        ...


def ready_addresses(endpoints: Endpoints | None, port: str) -> list[str]:
    """Returns `host:port` of the ready addresses, in a stable order.

    Args:
        endpoints: the Endpoints object of the mesh's Service; None where there is none yet.
        port: name of the Service's port.
    """
    if endpoints is None:
        return []
    return sorted(
        f"[{address.ip}]:{p.port}" if ":" in address.ip else f"{address.ip}:{p.port}"
        for subset in endpoints.subsets
        for p in subset.ports
        if p.name == port
        for address in subset.addresses
    )


@dataclass(slots=True)
class _Peer:
    channel: grpc.aio.Channel
    stub: Any = field(init=False)
    calls: int = 0

    def __post_init__(self) -> None:
        self.stub = ModelMeshStub(self.channel)


class MeshClient:
    """Calls one namespace's mesh, round robin over the instances that are ready.

    Args:
        addresses: returns `host:port` of the ready instances.
        right: says for how long this process may change something; None: always.
        credentials: TLS; None for plain text.
        timeout_s: limit of one call, in seconds.
    """

    def __init__(
        self,
        addresses: Callable[[], Sequence[str]],
        *,
        right: fence.Right | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._addresses = addresses
        self._right = right
        self._credentials = credentials
        self._timeout_s = timeout_s
        self._peers: dict[str, _Peer] = {}
        self._turn = 0

    async def set_vmodel(self, request: pb.SetVModelRequest) -> pb.VModelStatusInfo:
        """Creates or moves a vmodel; NameTakenError where another owner has the name."""
        async with fence.writing(self._right):
            answer: pb.VModelStatusInfo = await self._call("setVModel", request)
        return answer

    async def get_vmodel_status(self, request: pb.GetVModelStatusRequest) -> pb.VModelStatusInfo:
        """Returns a vmodel's status; an unknown one gives an empty message."""
        answer: pb.VModelStatusInfo = await self._call("getVModelStatus", request)
        return answer

    async def delete_vmodel(self, request: pb.DeleteVModelRequest) -> None:
        """Deletes a vmodel, where it exists and has the owner."""
        async with fence.writing(self._right):
            await self._call("deleteVModel", request)

    async def close(self) -> None:
        """Closes all channels; calls in flight fail."""
        peers, self._peers = self._peers, {}
        await asyncio.gather(*(peer.channel.close() for peer in peers.values()))

    async def _call(self, method: str, request: Any) -> Any:
        addresses = self._addresses()
        await self._forget_all_but(addresses)
        if not addresses:
            raise MeshUnreachableError("no mesh instance is ready")
        self._turn += 1
        start = self._turn % len(addresses)
        refusals = []
        for address in (*addresses[start:], *addresses[:start]):
            fence.check()
            peer = self._peer(address)
            peer.calls += 1
            try:
                return await getattr(peer.stub, method)(request, timeout=self._timeout_s)
            except grpc.aio.AioRpcError as error:
                code, details = error.code(), error.details() or ""
                if code is not grpc.StatusCode.UNAVAILABLE:
                    kind = NameTakenError if code is grpc.StatusCode.ALREADY_EXISTS else MeshCallError
                    raise kind(method, address, code.name, details) from error
                refusals.append(f"{address}: {details}")
            finally:
                peer.calls -= 1
        raise MeshUnreachableError(f"no mesh instance answers: {'; '.join(refusals)}")

    def _peer(self, address: str) -> _Peer:
        if (peer := self._peers.get(address)) is None:
            if self._credentials is None:
                channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
            else:
                channel = grpc.aio.secure_channel(address, self._credentials, options=_CHANNEL_OPTIONS)
            peer = self._peers[address] = _Peer(channel)
        return peer

    async def _forget_all_but(self, addresses: Sequence[str]) -> None:
        gone = [a for a, peer in self._peers.items() if a not in addresses and not peer.calls]
        for peer in [self._peers.pop(address) for address in gone]:
            await peer.channel.close()


class MeshClients:
    """One MeshClient a namespace, made when first asked for.

    Args:
        addresses: returns `host:port` of the ready instances of a namespace.
        right: says for how long this process may change something; None: always.
    """

    def __init__(
        self, addresses: Callable[[str], Sequence[str]], *, right: fence.Right | None = None
    ) -> None:
        self._addresses = addresses
        self._right = right
        self._clients: dict[str, MeshClient] = {}

    def of(self, namespace: str) -> MeshClient:
        """Returns the namespace's client."""
        if namespace not in self._clients:
            self._clients[namespace] = MeshClient(lambda: self._addresses(namespace), right=self._right)
        return self._clients[namespace]

    async def close(self) -> None:
        """Closes all of them."""
        clients, self._clients = self._clients, {}
        await asyncio.gather(*(client.close() for client in clients.values()))

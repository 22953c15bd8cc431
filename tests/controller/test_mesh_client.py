import asyncio
from typing import Any

import grpc
import pytest

from api.core import Endpoints
from api.proto import model_mesh_pb2 as pb
from controller.errors import MeshCallError, MeshUnreachableError, NameTakenError
from controller.mesh_client import MeshClient, MeshClients, ready_addresses
from controller.runtime.fence import WriteRefusedError


def _request() -> pb.SetVModelRequest:
    return pb.SetVModelRequest(vModelId="m", targetModelId="m__isvc-6b2eb0b8bf", owner="isvc")


def test_addresses_and_ports_come_from_the_endpoints() -> None:
    endpoints = Endpoints.parse(
        {
            "metadata": {"name": "s"},
            "subsets": [
                {
                    "addresses": [{"ip": "10.0.0.2"}, {"ip": "fd00::1"}],
                    "notReadyAddresses": [{"ip": "10.0.0.3"}],
                    "ports": [{"name": "grpc", "port": 8033}, {"name": "http", "port": 8008}],
                },
                {"addresses": [{"ip": "127.0.0.1"}], "ports": [{"name": "grpc", "port": 41234}]},
            ],
        },
    )
    assert ready_addresses(endpoints, "grpc") == ["10.0.0.2:8033", "127.0.0.1:41234", "[fd00::1]:8033"]
    assert ready_addresses(None, "grpc") == []


@pytest.fixture
async def address(idle_world: Any) -> str:
    return f"127.0.0.1:{idle_world.port}"


@pytest.fixture
def dead_address(unused_tcp_port: int) -> str:
    return f"127.0.0.1:{unused_tcp_port}"


async def test_without_addresses_no_mesh_is_reachable() -> None:
    with pytest.raises(MeshUnreachableError, match="no mesh instance is ready"):
        await MeshClient(list).set_vmodel(_request())


async def test_an_instance_that_does_not_answer_is_passed_over(address: str, dead_address: str) -> None:
    client = MeshClient(lambda: [dead_address, address])
    for _ in range(4):
        answer = await client.set_vmodel(_request())
        assert answer.targetModelId == "m__isvc-6b2eb0b8bf"
    await client.close()


async def test_where_none_answers_all_are_named(dead_address: str) -> None:
    client = MeshClient(lambda: [dead_address])
    with pytest.raises(MeshUnreachableError, match=dead_address):
        await client.set_vmodel(_request())
    await client.close()


async def test_errors_are_told_apart(idle_world: Any, address: str) -> None:
    client = MeshClient(lambda: [address])
    idle_world.mesh.refusal = (grpc.StatusCode.ALREADY_EXISTS, "taken")
    with pytest.raises(NameTakenError, match="ALREADY_EXISTS: taken"):
        await client.set_vmodel(_request())
    idle_world.mesh.refusal = (grpc.StatusCode.INTERNAL, "broken")
    with pytest.raises(MeshCallError, match=r"setVModel at 127\.0\.0\.1.*INTERNAL: broken") as error:
        await client.set_vmodel(_request())
    assert error.value.code == "INTERNAL"
    await client.close()


async def test_a_call_that_takes_too_long_fails(idle_world: Any, address: str) -> None:
    never = asyncio.Event()

    async def hang(request: Any, context: Any) -> Any:
        del request, context
        await never.wait()

    idle_world.mesh.answer = hang
    client = MeshClient(lambda: [address], timeout_s=0.05)
    with pytest.raises(MeshCallError, match="DEADLINE_EXCEEDED"):
        await client.set_vmodel(_request())
    await client.close()


async def test_channels_of_vanished_addresses_are_closed(address: str, dead_address: str) -> None:
    addresses = [address, dead_address]
    client = MeshClient(lambda: addresses)
    await client.set_vmodel(_request())
    await client.set_vmodel(_request())
    addresses.remove(dead_address)
    await client.set_vmodel(_request())
    assert set(client._peers) == {address}
    await client.close()


class Lease:
    remaining = 10.0


async def test_a_former_leader_changes_nothing_in_a_mesh(idle_world: Any, address: str) -> None:
    lease = Lease()
    clients = MeshClients(lambda _: [address], right=lease)
    client = clients.of("ns")
    await client.set_vmodel(_request())
    lease.remaining = 0.0
    with pytest.raises(WriteRefusedError):
        await client.set_vmodel(_request())
    with pytest.raises(WriteRefusedError):
        await client.delete_vmodel(pb.DeleteVModelRequest(vModelId="m", owner="isvc"))
    await client.get_vmodel_status(pb.GetVModelStatusRequest(vModelId="m", owner="isvc"))
    assert [type(call) for call in idle_world.mesh.calls] == [pb.SetVModelRequest, pb.GetVModelStatusRequest]
    await clients.close()


async def test_a_lease_that_runs_out_between_two_instances_ends_the_attempts(
    idle_world: Any, address: str, dead_address: str
) -> None:
    class Short:
        looks = 0

        @property
        def remaining(self) -> float:
            self.looks += 1
            return 10.0 if self.looks <= 3 else 0.0  # on entry, as limit, and for the first instance

    client = MeshClient(lambda: [address, dead_address], right=Short())
    with pytest.raises(WriteRefusedError):
        await client.set_vmodel(_request())
    assert idle_world.mesh.calls == []
    await client.close()


async def test_a_change_without_answer_is_given_up_with_the_lease(idle_world: Any, address: str) -> None:
    never = asyncio.Event()

    async def hang(request: Any, context: Any) -> Any:
        del request, context
        await never.wait()

    idle_world.mesh.answer = hang
    lease = Lease()
    lease.remaining = 0.05
    client = MeshClient(lambda: [address], right=lease)
    with pytest.raises(WriteRefusedError, match="did not answer before the right to write"):
        await client.set_vmodel(_request())
    await client.close()

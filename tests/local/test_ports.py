import os
import socket
from collections.abc import Iterator

import pytest

from local.errors import PortTakenError
from local.ports import PortAllocator, is_free, require_free


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_is_given_out_once() -> None:
    allocator = PortAllocator()
    ports = [allocator.allocate() for _ in range(200)]
    assert len(set(ports)) == 200


def test_a_released_port_can_be_given_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.ports._RANGE", range(20000, 20001))
    monkeypatch.setattr("local.ports.is_free", lambda _port: True)
    allocator = PortAllocator()
    port = allocator.allocate()
    with pytest.raises(PortTakenError):
        allocator.allocate()
    allocator.release(port)
    assert allocator.allocate() == port


def test_a_port_in_use_is_not_given_out(monkeypatch: pytest.MonkeyPatch, listener: int) -> None:
    monkeypatch.setattr("local.ports._RANGE", range(listener, listener + 1))
    with pytest.raises(PortTakenError):
        PortAllocator().allocate()


def test_a_taken_port_is_reported_with_its_process_and_a_way_out(listener: int) -> None:
    assert not is_free(listener)
    with pytest.raises(PortTakenError) as caught:
        require_free(listener, "inference by gRPC", "--grpc-port")
    text = str(caught.value)
    assert f"port {listener}" in text
    assert f"kill {os.getpid()}" in text
    assert "--grpc-port" in text

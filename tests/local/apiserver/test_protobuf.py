from __future__ import annotations

import pytest

from controller.runtime.errors import BadRequest, UnsupportedMediaType
from local.apiserver import protobuf


def _field(number: int, payload: bytes) -> bytes:
    return bytes([number << 3 | 2, len(payload)]) + payload


def _envelope(api_version: bytes, kind: bytes, raw: bytes) -> bytes:
    return b"k8s\x00" + _field(1, _field(1, api_version) + _field(2, kind)) + _field(2, raw)


def test_a_secret_is_read_with_its_maps_and_bytes() -> None:
    meta = _field(1, b"s") + _field(11, _field(1, b"a") + _field(2, b"b"))
    raw = (
        _field(1, meta) + _field(2, _field(1, b"k") + _field(2, b"\xff")) + _field(3, b"Opaque") + b"\x28\x01"
    )
    assert protobuf.decode(_envelope(b"v1", b"Secret", raw)) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "labels": {"a": "b"}},
        "data": {"k": "/w=="},
        "type": "Opaque",
        "immutable": True,
    }


def test_kinds_that_are_not_read_are_named_with_a_way_out() -> None:
    with pytest.raises(UnsupportedMediaType, match=r"apps/v1 Deployment.*kubectl apply -f -"):
        protobuf.decode(_envelope(b"apps/v1", b"Deployment", b""))


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"k8s\x00\x0a\xff", b"k8s\x00\x0f", _envelope(b"v1", b"Secret", b"\x0a\x7f")]
)
def test_rubbish_is_refused(body: bytes) -> None:
    with pytest.raises((BadRequest, UnsupportedMediaType)):
        protobuf.decode(body)

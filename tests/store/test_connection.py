"""The etcd_connection settings, and what is said about wrong ones."""

import json
from pathlib import Path

import pytest

from store.connection import parse_connection, read_connection
from store.errors import ConnectionConfigError
from store.etcd import Tls


def settings(**values: str) -> str:
    return json.dumps({"endpoints": "http://etcd:2379"} | values)


def test_endpoints_are_a_list_of_urls() -> None:
    connection = parse_connection(settings(endpoints="http://one:2379, http://two:2380/,http://three"))
    assert connection.endpoints == ("one:2379", "two:2380", "three:2379")
    assert connection.tls is None


def test_user_prefix_and_authority_come_along() -> None:
    connection = parse_connection(
        settings(userid="u", password="p", root_prefix="/here", override_authority="etcd.example")
    )
    assert (connection.user, connection.password) == ("u", "p")
    assert (connection.root_prefix, connection.authority) == ("/here", "etcd.example")


@pytest.mark.parametrize(
    ("values", "tls"),
    [
        ({"endpoints": "https://etcd:2379"}, Tls()),
        ({"certificate": "ROOT"}, Tls(b"ROOT")),
        ({"certificate": "inline", "certificate_file": "ca.pem"}, Tls(b"FROM FILE")),
        ({"client_key": "K", "client_certificate": "C"}, Tls(None, b"K", b"C")),
    ],
)
def test_tls_is_on_for_https_or_any_certificate(values: dict[str, str], tls: Tls) -> None:
    assert parse_connection(settings(**values), {"ca.pem": b"FROM FILE"}).tls == tls


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"endpoints": ""}, "endpoints"),
        ({"endpoints": "ftp://etcd:1"}, "ftp"),
        ({"endpoints": "http://etcd:notaport"}, "notaport"),
        ({"certificate_file": "ca.pem"}, "certificate_file"),
        ({"client_key": "K"}, "client_certificate"),
        ({"userid": "u"}, "password"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, str], named: str) -> None:
    with pytest.raises(ConnectionConfigError, match=named):
        parse_connection(settings(**values))


def test_broken_json_is_said_so() -> None:
    with pytest.raises(ConnectionConfigError, match="etcd_connection is not valid"):
        parse_connection("{")


def test_kv_store_names_a_file_whose_neighbours_are_the_certificates(tmp_path: Path) -> None:
    (tmp_path / "etcd_connection").write_text(settings(certificate_file="ca.pem"))
    (tmp_path / "ca.pem").write_text("ROOT")
    assert read_connection(f"etcd:{tmp_path}/etcd_connection").tls == Tls(b"ROOT")


def test_kv_store_may_be_an_address() -> None:
    assert read_connection("etcd:127.0.0.1:2379").endpoints == ("127.0.0.1:2379",)


@pytest.mark.parametrize("kv_store", ["zookeeper:one:2181", "", "etcd:/nowhere/etcd_connection"])
def test_other_stores_and_missing_files_are_refused(kv_store: str) -> None:
    with pytest.raises(ConnectionConfigError, match="KV_STORE"):
        read_connection(kv_store)

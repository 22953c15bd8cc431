"""The `etcd_connection` settings: JSON, as in the Secret that the controller copies to every namespace."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from store.errors import ConnectionConfigError
from store.etcd import EtcdStore, Tls

ETCD_SCHEME = "etcd:"


class _Settings(msgspec.Struct):
    endpoints: str = ""
    userid: str = ""
    password: str = ""
    root_prefix: str = ""
    certificate: str = ""
    certificate_file: str = ""
    client_key: str = ""
    client_key_file: str = ""
    client_certificate: str = ""
    client_certificate_file: str = ""
    override_authority: str = ""


@dataclass(frozen=True, slots=True)
class EtcdConnection:
    """Everything needed to reach an etcd cluster."""

    endpoints: tuple[str, ...]
    """host:port each."""
    root_prefix: str = ""
    user: str = ""
    password: str = ""
    tls: Tls | None = None
    authority: str = ""


def parse_connection(raw: bytes | str, files: Mapping[str, bytes] | None = None) -> EtcdConnection:
    """Reads the JSON of `etcd_connection`.

    `files` are the other entries of the Secret, which `*_file` settings name; they win over inline PEM.
    Raises ConnectionConfigError naming the setting at fault.
    """
    try:
        settings = msgspec.json.decode(raw, type=_Settings)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConnectionConfigError(f"etcd_connection is not valid: {error}") from error
    return _connection(settings, files or {})


def read_connection(kv_store: str) -> EtcdConnection:
    """Reads the `KV_STORE` variable: `etcd:<path of an etcd_connection file>` or `etcd:<host>:<port>[,…]`.

    Entries beside the file are the ones that `*_file` settings may name. Raises ConnectionConfigError.
    """
    if not kv_store.startswith(ETCD_SCHEME):
        raise ConnectionConfigError(f"KV_STORE is {kv_store!r}: it must start with 'etcd:'")
    target = kv_store.removeprefix(ETCD_SCHEME)
    path = Path(target)
    if not path.is_file():
        if "/" in target.removeprefix("http://").removeprefix("https://"):
            raise ConnectionConfigError(f"KV_STORE names the file {target}, which does not exist")
        return _connection(_Settings(endpoints=target), {})
    entries = {entry.name: entry.read_bytes() for entry in path.parent.iterdir() if entry.is_file()}
    return parse_connection(path.read_bytes(), entries)


async def connect(connection: EtcdConnection) -> EtcdStore:
    """Opens a store and proves that it answers. Raises StoreUnavailableError or StoreAuthError."""
    store = EtcdStore(
        connection.endpoints,
        root_prefix=connection.root_prefix,
        user=connection.user,
        password=connection.password,
        tls=connection.tls,
        authority=connection.authority,
    )
    try:
        await store.get("/")
    except BaseException:
        await store.close()
        raise
    return store


def _connection(settings: _Settings, files: Mapping[str, bytes]) -> EtcdConnection:
    urls = [part.strip() for part in settings.endpoints.split(",") if part.strip()]
    if not urls:
        raise ConnectionConfigError("etcd_connection names no endpoints")
    root = _pem(settings.certificate, settings.certificate_file, files, "certificate_file")
    key = _pem(settings.client_key, settings.client_key_file, files, "client_key_file")
    certificate = _pem(
        settings.client_certificate, settings.client_certificate_file, files, "client_certificate_file"
    )
    if (key is None) != (certificate is None):
        raise ConnectionConfigError(
            "etcd_connection needs both client_key and client_certificate, or neither"
        )
    if bool(settings.userid) != bool(settings.password):
        raise ConnectionConfigError("etcd_connection needs both userid and password, or neither")
    encrypted = urls[0].startswith("https://") or root is not None or key is not None
    return EtcdConnection(
        endpoints=tuple(_endpoint(url) for url in urls),
        root_prefix=settings.root_prefix,
        user=settings.userid,
        password=settings.password,
        tls=Tls(root, key, certificate) if encrypted else None,
        authority=settings.override_authority,
    )


def _endpoint(url: str) -> str:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path not in {"", "/"}:
        raise ConnectionConfigError(f"etcd_connection: endpoint {url!r} is not http(s)://host:port")
    try:
        port = parts.port or 2379
    except ValueError as error:
        raise ConnectionConfigError(f"etcd_connection: endpoint {url!r}: {error}") from error
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port}"


def _pem(inline: str, name: str, files: Mapping[str, bytes], setting: str) -> bytes | None:
    if name:
        if name not in files:
            raise ConnectionConfigError(f"etcd_connection: {setting} names {name!r}, which is not there")
        return files[name]
    return inline.encode() or None

"""Storage type `http`: files of web servers.

Not through the library of the object stores, which keeps no query, follows redirects with the credentials of
the first server, and has no client certificates.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import re
import ssl
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import aiohttp
from yarl import URL

from adapters.errors import (
    ObjectNotFoundError,
    StorageConfigError,
    StorageDeniedError,
    StorageError,
    StorageUnavailableError,
)
from adapters.puller import clients
from adapters.puller.download import ATTEMPTS, download_all, pause_s
from adapters.puller.targets import Download, RemoteObject, without_collisions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from adapters.puller.settings import Pod
    from adapters.puller.storage_config import StorageConfig
    from adapters.puller.targets import Target

_CHUNK_BYTES = 256 << 10
_REDIRECTS = {301, 302, 303, 307, 308}
_MOST_REDIRECTS = 5
_OK, _PARTIAL, _EMPTY_RANGE = 200, 206, 416
_DENIED, _MISSING = {401, 403, 407}, {404, 410}
_CHANGED = 412
_TRANSIENT = {408, 425, 429}
_SERVER_ERRORS = 500
_TOTAL = re.compile(r"bytes (?:\d+-\d+|\*)/(\d+)")
_DIGEST = re.compile(r"(sha-256|sha-512)=:?([A-Za-z0-9+/]+=*)", re.IGNORECASE)


def open_storage(config: StorageConfig, pod: Pod) -> WebStorage:
    """Opens the server that the settings name.

    Settings: `url`, to whose path the model's is added and whose query is kept; `headers` (names to a text or
    a list of texts); `certificate` (PEM) of a private authority; `client_certificate` and `client_key` (PEM).
    Headers and client certificate are for this server: after a redirect to another one they are left out.

    Raises:
        StorageConfigError: a setting cannot be used.
    """
    parts = urlsplit(config.text("url"))
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise StorageConfigError(
            f'url "{parts.scheme}://{parts.hostname or ""}" is no http or https URL of a server without user '
            f"and password ({config.describe()})",
        )
    return WebStorage(config, _headers(config), _Tls.of(config), pod)


def _headers(config: StorageConfig) -> list[tuple[str, str]]:
    headers = config.values.get("headers", {})
    if not isinstance(headers, dict):
        raise StorageConfigError(f"headers must be an object ({config.describe()})")
    pairs = [(name, each) for name, value in headers.items() for each in _as_list(value)]
    if any(not isinstance(value, str) or re.search(r"[\r\n\0]", f"{name}{value}") for name, value in pairs):
        raise StorageConfigError(f"headers must be texts of one line, or lists of them ({config.describe()})")
    return pairs


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@dataclass(frozen=True, slots=True)
class _Tls:
    """How to trust servers: `own` shows the client certificate as well."""

    own: ssl.SSLContext
    others: ssl.SSLContext

    @classmethod
    def of(cls, config: StorageConfig) -> _Tls:
        own, others = ssl.create_default_context(), ssl.create_default_context()
        try:
            if authority := config.text("certificate"):
                own.load_verify_locations(cadata=authority)
                others.load_verify_locations(cadata=authority)
            if config.text("client_certificate"):
                # The ssl module takes these from a file only.
                with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
                    file.write(f"{config.text('client_certificate')}\n{config.text('client_key')}\n")
                    file.flush()
                    own.load_cert_chain(file.name)
        except (ssl.SSLError, ValueError) as error:
            raise StorageConfigError(
                f"certificate, client_certificate or client_key is no PEM ({config.describe()}): {error}",
            ) from error
        return cls(own, others)


class WebStorage:
    """A web server; each target is one file."""

    takes_room = True

    def __init__(
        self, config: StorageConfig, headers: Sequence[tuple[str, str]], tls: _Tls, pod: Pod
    ) -> None:
        self._config = config
        self._base = urlsplit(config.text("url"))
        self._headers = headers
        self._tls = tls
        self._pod = pod

    async def find(self, targets: Sequence[Target]) -> list[Download]:
        """Asks for the first byte of each file, which tells its size and version.

        Not by HEAD: a signed URL is good for one method.
        """
        downloads = []
        for target in targets:
            async with self._pod.transfers:
                item = await self._look(target.remote)
            is_folder = not target.local or target.local.endswith("/")
            name = target.remote.rpartition("/")[2] if is_folder else ""
            downloads.append(Download(item, f"{target.local}{name}"))
        return without_collisions(downloads)

    async def fetch(self, downloads: Sequence[Download], folder: Path) -> None:
        """Downloads the files."""
        for download in downloads:
            await download_all(_Transfer(self, download.source), [download], folder, self._pod)

    async def _look(self, remote: str) -> RemoteObject:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with self.ask(remote, {"Range": "bytes=0-0"}) as response:
                    return RemoteObject(remote, _size(response), _version(response))
            except StorageUnavailableError:
                if attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(pause_s(attempt))
        raise AssertionError("the last attempt returns or raises")

    @contextlib.asynccontextmanager
    async def ask(self, remote: str, extra: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Sends a GET, follows redirects, and yields an answer of 200, 206 or 416.

        Raises:
            StorageError: any other answer, or none, by kind.
        """
        url, doing = self._url(remote), f"reading {self.describe(remote)}"
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=clients.CONNECT_TIMEOUT_S, sock_read=clients.SILENCE_TIMEOUT_S
        )
        try:
            async with aiohttp.ClientSession(
                timeout=timeout, trust_env=True, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            ) as session:
                for _ in range(_MOST_REDIRECTS + 1):
                    own = _origin(url) == (self._base.scheme, self._base.netloc)
                    headers = [
                        *(self._headers if own else ()),
                        *extra.items(),
                        ("Accept-Encoding", "identity"),
                    ]
                    async with session.get(
                        URL(url, encoded=True),
                        headers=headers,
                        ssl=self._tls.own if own else self._tls.others,
                        allow_redirects=False,
                    ) as response:
                        if response.status not in _REDIRECTS or "Location" not in response.headers:
                            self._check(response, doing)
                            yield response
                            return
                        url = self._redirected(url, response.headers["Location"], doing)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            if isinstance(error, aiohttp.ClientConnectorCertificateError):
                raise StorageConfigError(f"{doing} failed ({self._config.describe()}): {reason}") from error
            raise StorageUnavailableError(f"{doing} failed ({self._config.describe()}): {reason}") from error
        raise StorageConfigError(f"{doing} failed: it was redirected more than {_MOST_REDIRECTS} times")

    def describe(self, remote: str) -> str:
        """A file's URL without its query, which may carry a signature."""
        return self._url(remote).partition("?")[0]

    def _url(self, remote: str) -> str:
        """The URL of a path: percent-encoded parts stay as they are, and so does the query."""
        path = quote(remote.lstrip("/"), safe="/%:@!$&'()*+,;=~-._")
        joined = f"{self._base.path.rstrip('/')}/{path}"
        return urlunsplit((self._base.scheme, self._base.netloc, joined, self._base.query, ""))

    def _redirected(self, url: str, location: str, doing: str) -> str:
        target = urljoin(url, location)
        scheme = urlsplit(target).scheme
        if scheme not in {"http", "https"} or (url.startswith("https:") and scheme != "https"):
            raise StorageConfigError(f"{doing} failed: it was redirected from https to {scheme}")
        return target

    def _check(self, response: aiohttp.ClientResponse, doing: str) -> None:
        status = response.status
        message = f"{doing} failed ({self._config.describe()}): HTTP status {status} {response.reason or ''}"
        if status in {_OK, _PARTIAL, _EMPTY_RANGE}:
            return
        if status in _MISSING:
            raise ObjectNotFoundError(message)
        if status in _DENIED:
            raise StorageDeniedError(message)
        if status == _CHANGED:
            raise StorageError(f"{doing} failed: it was replaced during the pull; load again")
        if status in _TRANSIENT or status >= _SERVER_ERRORS:
            raise StorageUnavailableError(message)
        raise StorageConfigError(message)


class _Transfer:
    """The reading of one file, which learns from the answers what the server can do."""

    def __init__(self, storage: WebStorage, item: RemoteObject) -> None:
        self._storage = storage
        # Without a version a later range could be one of another file.
        self.has_ranges = bool(item.version) and item.size is not None
        self._digest: tuple[str, str] | None = None

    async def read(self, item: RemoteObject, start: int, end: int | None) -> AsyncIterator[bytes]:
        """Streams from `start` on."""
        whole = (start, end) == (0, item.size)
        extra = {} if whole else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        if item.version.startswith('"'):
            extra["If-Match"] = item.version
        async with self._storage.ask(item.key, extra) as response:
            if _version(response) != item.version:
                raise StorageError(f"{self.describe(item)} was replaced during the pull; load again")
            partial = response.status == _PARTIAL
            self._digest = _digest(response, partial=partial) or self._digest
            skip, left = 0 if partial else start, None if end is None else end - start
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                # A server without ranges sends all from the start.
                piece = chunk[skip:]
                skip -= len(chunk) - len(piece)
                if left is not None and len(piece) > left:
                    if partial or whole:
                        raise StorageUnavailableError(f"{self.describe(item)} is longer than was announced")
                    piece = piece[:left]
                if piece:
                    yield piece
                if left is not None:
                    left -= len(piece)
                    if not left and not whole:
                        return

    def describe(self, item: RemoteObject) -> str:
        """The file's URL."""
        return self._storage.describe(item.key)

    def digest(self, item: RemoteObject) -> tuple[str, str] | None:  # noqa: ARG002 - one transfer, one item
        """What the server's headers said."""
        return self._digest

    def distrust_digests(self, item: RemoteObject) -> bool:  # noqa: ARG002 - as above
        """A header that names its hash is meant so."""
        return False


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _size(response: aiohttp.ClientResponse) -> int | None:
    if response.status in {_PARTIAL, _EMPTY_RANGE}:
        total = _TOTAL.fullmatch(response.headers.get("Content-Range", ""))
        return int(total[1]) if total else None
    return response.content_length


def _version(response: aiohttp.ClientResponse) -> str:
    """A strong ETag, else the time of the last change; a weak ETag does not tell bytes apart."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _digest(response: aiohttp.ClientResponse, *, partial: bool) -> tuple[str, str] | None:
    """The hash of the whole file, by RFC 9530, RFC 3230 or, of a whole answer, RFC 1864."""
    for header in ("Repr-Digest", "Digest"):
        if found := _DIGEST.search(response.headers.get(header, "")):
            return found[1].lower().replace("-", ""), _hex(found[2])
    content = "" if partial else response.headers.get("Content-MD5", "")
    return ("md5", _hex(content)) if content else None


def _hex(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).hex()
    except binascii.Error:
        return text

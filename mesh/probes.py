"""Plain HTTP for the kubelet and Prometheus: readiness, liveness, the pre-stop wait, metrics.

Answers GET on a handful of fixed paths and closes the connection, which is all that these clients need.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

import structlog

HEADER_TIMEOUT_SECONDS = 5.0
MAX_HEADER_BYTES = 16_384
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""What Prometheus expects."""

log = structlog.get_logger(__name__)
Page = Callable[[], Awaitable[tuple[HTTPStatus, str]]]
"""Returns a status and a plain text."""


class HttpPages:
    """A server of a few pages on one port."""

    def __init__(self, host: str, port: int, pages: Mapping[str, Page]) -> None:
        self._host = host
        self._port = port
        self._pages = pages
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The open port."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server else self._port

    async def start(self) -> None:
        """Opens the port. Raises OSError naming the address."""
        try:
            self._server = await asyncio.start_server(
                self._serve, self._host, self._port, limit=MAX_HEADER_BYTES
            )
        except OSError as error:
            raise OSError(
                error.errno, f"cannot listen on {self._host}:{self._port}: {error.strerror}"
            ) from error

    async def stop(self) -> None:
        """Closes the port; answers under way are given."""
        if self._server is None:
            return
        self._server.close()
        if self._running:
            await asyncio.wait(self._running, timeout=1)
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task:
            self._running.add(task)
        try:
            async with asyncio.timeout(HEADER_TIMEOUT_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            status, text = await self._page(head)
            body = text.encode()
            head_lines = (
                f"HTTP/1.1 {status.value} {status.phrase}",
                f"Content-Type: {CONTENT_TYPE}",
                f"Content-Length: {len(body)}",
                "Connection: close",
            )
            writer.write("\r\n".join((*head_lines, "", "")).encode())
            if not head.startswith(b"HEAD "):
                writer.write(body)
            await writer.drain()
        except (
            TimeoutError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
            ConnectionError,
        ) as error:
            log.debug("probe connection ended", error=str(error))
        finally:
            writer.close()
            if task:
                self._running.discard(task)

    async def _page(self, head: bytes) -> tuple[HTTPStatus, str]:
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split()
        if len(words) != 3 or words[0] not in {"GET", "HEAD"}:  # noqa: PLR2004 - method, path, version
            return HTTPStatus.METHOD_NOT_ALLOWED, "only GET is served here\n"
        page = self._pages.get(words[1].split("?", 1)[0])
        return await page() if page else (HTTPStatus.NOT_FOUND, "no such page\n")

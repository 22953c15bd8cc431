"""The admission webhook for runtimes, for installations that have the original's and its certificate.

It refuses what the CRDs' rules and the admission policies refuse, with the same texts; where those are
installed it is not needed. It is served where there is a certificate, and reads that again when it changes.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp import web
from pydantic import ValidationError

from api.v1alpha1 import ServingRuntime
from controller import runtime_validation
from controller.errors import ControllerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

JSON = dict[str, Any]

_log = structlog.get_logger(__name__)

PATH: Final = "/validate-serving-modelmesh-io-v1alpha1-servingruntime"
PORT: Final = 9443
_LOOK_S = 10.0
"""Seconds between two looks at the certificate; the kubelet takes a minute to bring a new one."""
_MAX_BYTES = 8 * 1024 * 1024
"""Of a review: the object and the one before it, each at most 3 MiB."""


class WebhookError(ControllerError):
    """The webhook cannot be served; says why."""


def review(request: JSON) -> JSON:
    """Answers an AdmissionReview (`admission.k8s.io/v1`)."""
    asked = request.get("request") or {}
    verdict: JSON = {"uid": asked.get("uid", ""), "allowed": True}
    if asked.get("operation") in {"CREATE", "UPDATE"} and _says_anything_new(asked):
        try:
            runtime = ServingRuntime.parse(asked.get("object") or {})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            verdict |= {"allowed": False, "status": _status(400, f"{where}: {first['msg']}")}
        else:
            found = [
                *runtime_validation.spec_problems(runtime.spec),
                *runtime_validation.autoscaling_problems(runtime.metadata.annotations, runtime.spec),
            ]
            if found:
                verdict |= {"allowed": False, "status": _status(403, runtime_validation.sentence(found))}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": verdict}


def _says_anything_new(asked: JSON) -> bool:
    """Whether spec or annotations change: an older object that breaks a rule can still lose a finalizer."""

    def judged(field: str) -> tuple[Any, ...]:
        obj = asked.get(field) or {}
        return obj.get("spec"), (obj.get("metadata") or {}).get("annotations") or {}

    return asked["operation"] == "CREATE" or judged("object") != judged("oldObject")


def _status(code: int, message: str) -> JSON:
    return {"code": code, "message": message}


async def _handle(request: web.Request) -> web.Response:
    try:
        asked = await request.json()
    except ValueError:
        return web.Response(status=400, text="the body is no JSON\n")
    if not isinstance(asked, dict) or not isinstance(asked.get("request"), dict):
        return web.Response(status=400, text="the body is no AdmissionReview\n")
    return web.json_response(review(asked))


class _Certificate:
    """The key pair of a mounted Secret."""

    def __init__(self, folder: Path) -> None:
        self._files = (folder / "tls.crt", folder / "tls.key")
        self._seen: tuple[bytes, ...] = ()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    @property
    def exists(self) -> bool:
        """Whether both files are there."""
        return all(file.is_file() for file in self._files)

    def load(self) -> None:
        """Uses the files for new connections; OSError (an SSLError is one) where they are no key pair."""
        content = tuple(file.read_bytes() for file in self._files)
        if content != self._seen:
            self.context.load_cert_chain(*self._files)
            self._seen = content

    async def follow(self) -> None:
        """Loads what changes; a pair that is half written is tried again."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await asyncio.to_thread(self.load)
            except OSError as error:
                _log.warning("webhook certificate cannot be used, the last one stays", error=str(error))


@asynccontextmanager
async def serving(certificates: Path, port: int = PORT) -> AsyncIterator[int | None]:
    """Serves the webhook while the block runs; gives its port, None where there is no certificate.

    Args:
        certificates: folder with tls.crt and tls.key.
        port: where to listen; 0 for any.

    Raises:
        WebhookError: the certificate cannot be used, or the port is taken.
    """
    certificate = _Certificate(certificates)
    if not certificate.exists:
        _log.info("webhook is not served: there is no certificate", folder=str(certificates))
        yield None
        return
    try:
        certificate.load()
    except OSError as error:
        raise WebhookError(f"certificate of the webhook in {certificates} cannot be used: {error}") from error
    app = web.Application(client_max_size=_MAX_BYTES)
    app.add_routes([web.post(PATH, _handle)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    follower = asyncio.create_task(certificate.follow())
    try:
        site = web.TCPSite(runner, "0.0.0.0", port, ssl_context=certificate.context)
        try:
            await site.start()
        except OSError as error:
            raise WebhookError(f"webhook cannot listen on port {port}: {error.strerror}") from error
        yield runner.addresses[0][1]
    finally:
        follower.cancel()
        await asyncio.wait([follower])
        await runner.cleanup()

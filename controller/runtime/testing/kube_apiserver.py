"""etcd and kube-apiserver as two processes on loopback ports."""

from __future__ import annotations

import json
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import aiohttp

from controller.runtime.http_client import load_client
from controller.runtime.testing.certificates import Authority
from controller.runtime.testing.process import Process, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from controller.runtime.http_client import HttpClient
    from controller.runtime.testing.binaries import Binaries

_ADMIN = "admin"
_ADMINS = "system:masters"
_REQUEST = aiohttp.ClientTimeout(total=2)


class KubeApiServer:
    """A real API server with a store of its own.

    Authorization is by Node and RBAC, the watch cache is on, and it can be stopped and started again with its
    data and on its port. Its processes belong to no event loop: one server serves a whole session of tests.

    Args:
        folder: for data, certificates and logs.
        binaries: the two programs.
        flags: further flags of kube-apiserver.
    """

    def __init__(self, folder: Path, binaries: Binaries, flags: Sequence[str] = ()) -> None:
        self._folder = folder
        self._binaries = binaries
        self._flags = flags
        self._authority = Authority(folder / "pki")
        self._admin = self._authority.user(_ADMIN, _ADMINS)
        self._store_port, self.port = free_port(), free_port()
        self._etcd = Process(self._etcd_command(), folder / "etcd.log")
        self._server = Process(self._server_command(), folder / "kube-apiserver.log")
        self.kubeconfig = self._write_kubeconfig(_ADMIN, self._admin, self.url)
        """File by which a client may do everything."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def tls(self) -> ssl.SSLContext:
        """The administrator's TLS settings, for requests by other means than a client of ours."""
        context = ssl.create_default_context(cafile=str(self._authority.certificate))
        context.load_cert_chain(*self._admin)
        return context

    async def start(self) -> None:
        """Start both programs and return when requests are served.

        Raises:
            TestEnvironmentError: one does not start; with the end of its log.
        """
        await self._etcd.start(self._etcd_ready)
        try:
            await self.start_server()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End both programs; the data stay in the folder."""
        await self.stop_server()
        await self._etcd.stop()

    async def start_server(self) -> None:
        """Start kube-apiserver alone, after `stop_server`."""
        await self._server.start(self._server_ready)

    async def stop_server(self, *, kill: bool = False) -> None:
        """End kube-apiserver alone; `kill` ends it without a farewell to its clients."""
        await self._server.stop(kill=kill)

    async def client(self, kubeconfig: Path | None = None, *, user_agent: str = "tests") -> HttpClient:
        """Return a client, the administrator's by default; the caller closes it."""
        return await load_client(kubeconfig or self.kubeconfig, user_agent=user_agent)

    def kubeconfig_for(self, user: str, group: str = "", *, url: str = "") -> Path:
        """Write the kubeconfig of a user, who may do what RBAC says, and return its path.

        Args:
            user: name as RBAC subjects have it.
            group: one group beside `system:authenticated`.
            url: where the server is reached, if not directly (a proxy on 127.0.0.1).
        """
        return self._write_kubeconfig(user, self._authority.user(user, group), url or self.url)

    async def compact(self) -> None:
        """Forget the history of the store: continue tokens and watches from before are answered 410.

        kube-apiserver keeps a history of its own in its watch cache until it is restarted.
        """
        async with aiohttp.ClientSession(f"http://127.0.0.1:{self._store_port}", timeout=_REQUEST) as etcd:
            async with etcd.post("/v3/maintenance/status", json={}) as response:
                revision = (await response.json())["header"]["revision"]
            async with etcd.post("/v3/kv/compaction", json={"revision": revision}) as response:
                response.raise_for_status()

    async def _etcd_ready(self) -> bool:
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with (
                aiohttp.ClientSession(timeout=_REQUEST) as session,
                session.get(f"http://127.0.0.1:{self._store_port}/health") as response,
            ):
                return response.ok
        return False

    async def _server_ready(self) -> bool:
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with (
                aiohttp.ClientSession(timeout=_REQUEST) as session,
                session.get(f"{self.url}/readyz", ssl=self.tls) as response,
            ):
                return response.ok
        return False

    def _write_kubeconfig(self, user: str, files: tuple[Path, Path], url: str) -> Path:
        certificate, key = files
        path = certificate.with_name(f"{certificate.stem}-{url.rpartition(':')[2]}.kubeconfig")
        cluster = {"server": url, "certificate-authority": str(self._authority.certificate)}
        credentials = {"client-certificate": str(certificate), "client-key": str(key)}
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": credentials}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "current-context": "test",
        }
        path.write_text(json.dumps(body, indent=2) + "\n")
        return path

    def _etcd_command(self) -> list[str]:
        peer = f"http://127.0.0.1:{free_port()}"
        store = f"http://127.0.0.1:{self._store_port}"
        return [
            str(self._binaries.etcd),
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={store}",
            f"--advertise-client-urls={store}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _server_command(self) -> list[str]:
        certificate, key = self._authority.server()
        _, account_key = self._authority.user("service-accounts")
        return [
            str(self._binaries.kube_apiserver),
            f"--etcd-servers=http://127.0.0.1:{self._store_port}",
            "--etcd-compaction-interval=0",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--secure-port={self.port}",
            f"--cert-dir={self._folder / 'pki'}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={self._authority.certificate}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            # It refuses pods whose service account nobody has made, and no controller makes any here.
            "--disable-admission-plugins=ServiceAccount",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={account_key}",
            f"--service-account-signing-key-file={account_key}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--allow-privileged=true",
            "--shutdown-delay-duration=0s",
            "--profiling=false",
            *self._flags,
        ]

"""The cluster's certificate authority and what it signs, made once by openssl and kept with the state."""

from __future__ import annotations

import base64
import json
import subprocess
from typing import TYPE_CHECKING

from hack.native_cluster.errors import NativeClusterError
from hack.native_cluster.paths import (
    API_PORT,
    API_SERVICE_ADDRESS,
    DOMAIN,
    NODE,
    NODE_ADDRESS,
)
from hack.native_cluster.programs import which

if TYPE_CHECKING:
    from pathlib import Path

_SETTINGS = "openssl.cnf"
_REQUEST = ("req", "-config", _SETTINGS, "-x509", "-new", "-days", "3650")
_SERVER_NAMES = (
    *("kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{DOMAIN}"),
    "localhost",
)
_SERVER_ADDRESSES = ("127.0.0.1", NODE_ADDRESS, API_SERVICE_ADDRESS)

# file -> (user, group); the names are those that Kubernetes' own roles are bound to
USERS = {
    "admin": ("native-cluster-admin", "system:masters"),
    "kubelet-client": ("kube-apiserver", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", ""),
    "kube-scheduler": ("system:kube-scheduler", ""),
    "kube-proxy": ("system:kube-proxy", ""),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
}


class Authority:
    """Issues certificates as files `NAME.crt` and `NAME.key` of one folder.

    Args:
        folder: for the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def issue_all(self) -> None:
        """Make every file that the cluster needs and that is missing.

        Raises:
            NativeClusterError: openssl fails.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        # The machine's own settings of openssl would add extensions.
        (self._folder / _SETTINGS).write_text("[req]\ndistinguished_name = name\n[name]\n")
        if not (self._folder / "ca.crt").exists():
            self._key("ca")
            self._openssl(
                *(*_REQUEST, "-key", "ca.key", "-subj", "/CN=native-cluster-ca"),
                *("-addext", "basicConstraints=critical,CA:TRUE"),
                *("-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature", "-out", "ca.crt"),
            )
        if not (self._folder / "service-accounts.key").exists():
            self._key("service-accounts")
        names = [f"DNS:{name}" for name in _SERVER_NAMES] + [f"IP:{address}" for address in _SERVER_ADDRESSES]
        self._certificate("kube-apiserver", "/CN=kube-apiserver", "serverAuth", names)
        self._certificate(
            "kubelet-server", f"/CN={NODE}", "serverAuth", [f"DNS:{NODE}", f"IP:{NODE_ADDRESS}"]
        )
        for stem, (user, group) in USERS.items():
            self._certificate(stem, f"{f'/O={group}' if group else ''}/CN={user}", "clientAuth", [])

    def kubeconfig(self, stem: str) -> str:
        """Return the kubeconfig of a user, complete with certificate and key.

        Args:
            stem: one of `USERS`.
        """

        def data(file: str) -> str:
            return base64.b64encode((self._folder / file).read_bytes()).decode()

        cluster = {
            "server": f"https://{NODE_ADDRESS}:{API_PORT}",
            "certificate-authority-data": data("ca.crt"),
        }
        user = {"client-certificate-data": data(f"{stem}.crt"), "client-key-data": data(f"{stem}.key")}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": NODE, "cluster": cluster}],
            "users": [{"name": stem, "user": user}],
            "contexts": [{"name": NODE, "context": {"cluster": NODE, "user": stem}}],
            "current-context": NODE,
        }
        return json.dumps(config, indent=2)

    def _certificate(self, stem: str, subject: str, usage: str, names: list[str]) -> None:
        if (self._folder / f"{stem}.crt").exists():
            return
        self._key(stem)
        extensions = [f"extendedKeyUsage={usage}", "keyUsage=critical,digitalSignature"]
        if names:
            extensions.append(f"subjectAltName={','.join(names)}")
        self._openssl(
            *(*_REQUEST, "-key", f"{stem}.key", "-subj", subject),
            *("-CA", "ca.crt", "-CAkey", "ca.key", "-out", f"{stem}.crt"),
            *(part for extension in extensions for part in ("-addext", extension)),
        )

    def _key(self, stem: str) -> None:
        self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{stem}.key")

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(
            [which("openssl"), *arguments], cwd=self._folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise NativeClusterError(
                f"openssl {arguments[0]} in {self._folder} fails: {done.stderr.strip()[-500:]}"
            )

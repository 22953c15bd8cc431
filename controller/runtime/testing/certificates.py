"""The keys and certificates of one environment: a private authority, the server's, and one for each user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.runtime.testing.errors import TestEnvironmentError

if TYPE_CHECKING:
    from pathlib import Path


class Authority:
    """Issues certificates and keeps them as files below `folder`."""

    def __init__(self, folder: Path) -> None:
        try:
            import trustme  # noqa: PLC0415 -- only who tests needs it
        except ModuleNotFoundError as error:
            raise TestEnvironmentError(
                "the package trustme is missing; install it: pip install trustme"
            ) from error
        self._authority = trustme.CA()
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate = folder / "ca.crt"
        self._authority.cert_pem.write_to_path(str(self.certificate))

    def server(self) -> tuple[Path, Path]:
        """Return the files of certificate and key of a server on this machine."""
        return self._write("server", "127.0.0.1", "localhost")

    def user(self, name: str, group: str = "") -> tuple[Path, Path]:
        """Return the files of certificate and key by which a client is the user `name` of `group`."""
        stem = name.replace(":", "-").replace("/", "-")
        # A certificate without any alternative name is refused by Go: the extension would be empty.
        return self._write(f"user-{stem}", "user", common_name=name, organization_name=group or None)

    def _write(
        self,
        stem: str,
        *identities: str,
        common_name: str | None = None,
        organization_name: str | None = None,
    ) -> tuple[Path, Path]:
        issued = self._authority.issue_cert(
            *identities, common_name=common_name, organization_name=organization_name
        )
        certificate, key = self._folder / f"{stem}.crt", self._folder / f"{stem}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        key.chmod(0o600)
        return certificate, key

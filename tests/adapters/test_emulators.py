"""Pulling from MinIO, and from emulators of Google's and Microsoft's stores.

They are built from their Go modules and an npm package by `make storage-tools`, which takes minutes, so these
tests run by `make test-storage` only.
"""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import obstore
import pytest
import trustme
from obstore.store import AzureStore, S3Store

from adapters.errors import ObjectNotFoundError, StorageConfigError, StorageDeniedError, StorageError
from adapters.puller import ModelKey, Pulled, Puller
from adapters.puller.settings import PullerSettings
from local.home import Home
from tests.store.etcd_server import free_port

pytestmark = pytest.mark.emulator

FILES = {"m/a": b"a", "m/sub/b c": b"bb", "m/empty": b"", "m-2/no": b"no"}
TREE = {"a": b"a", "sub/b c": b"bb", "empty": b""}
# The account that every Azurite has; its key is in Microsoft's documentation.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def tool(*parts: str) -> str:
    path = Home.from_environment().tools.joinpath(*parts)
    assert os.access(path, os.X_OK), f"{path} is missing: run `make storage-tools`"
    return str(path)


@contextmanager
def running(command: list[str], url: str, folder: Path, **environment: str) -> Iterator[None]:
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=output, env=os.environ | environment
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            try:
                httpx.get(url, timeout=2, verify=False)  # noqa: S501 - whether it is up; tests check certificates
            except httpx.HTTPError:
                time.sleep(0.05)
            else:
                break
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def puller(tmp_path: Path) -> Puller:
    (tmp_path / "models").mkdir()
    (tmp_path / "secret").mkdir()
    settings = PullerSettings(root=tmp_path / "models", secret=tmp_path / "secret", cache_bytes=1 << 30)
    return Puller(settings, key_patience_s=0)


async def pull(puller: Puller, entry: dict[str, Any], path: str = "m", **params: str) -> Pulled:
    (puller._secret / "entry").write_text(json.dumps(entry))
    return await puller.pull("model", path, ModelKey(storage_key="entry", storage_params=params))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------- Google Cloud Storage


@pytest.fixture(scope="module")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [tool("go", "fake-gcs-server"), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    command += ["-backend", "memory", "-external-url", url, "-public-host", f"127.0.0.1:{port}"]
    with running(command, url, tmp_path_factory.mktemp("gcs")):
        httpx.post(f"{url}/storage/v1/b?project=p", json={"name": "models"}).raise_for_status()
        for name, content in FILES.items():
            params = {"uploadType": "media", "name": name}
            upload = f"{url}/upload/storage/v1/b/models/o"
            httpx.post(upload, params=params, content=content).raise_for_status()
        yield {"type": "gcs", "bucket": "models", "endpoint_url": url}


async def test_gcs_is_pulled(puller: Puller, gcs: dict[str, str]) -> None:
    pulled = await pull(puller, gcs)
    assert tree(pulled.path) == TREE
    assert pulled.key.disk_size_bytes == 3


async def test_gcs_failures_are_named(puller: Puller, gcs: dict[str, str]) -> None:
    with pytest.raises(ObjectNotFoundError, match="no object at gs://models/absent"):
        await pull(puller, gcs, "absent")
    with pytest.raises(StorageError, match="gs://no-such"):
        await pull(puller, gcs, bucket="no-such")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"private_key": "x"}, "lack client_email"),
        ({"private_key": "x", "client_email": "a@b"}, "GCS settings cannot be used"),
        ({"token_uri": "https://evil.example/token"}, "none of Google's"),
        ({"credentials": "mine"}, 'must be "ambient" or "anonymous"'),
    ],
)
async def test_gcs_settings_that_cannot_be_used_are_named(
    puller: Puller, gcs: dict[str, str], entry: dict[str, str], message: str
) -> None:
    with pytest.raises(StorageConfigError, match=message):
        await pull(puller, gcs | entry)


# ---------------------------------------------------------------- Azure Blob Storage


def _create_container(url: str, name: str) -> None:
    """Signed by hand: the client library makes no containers."""
    date, version = formatdate(usegmt=True), "2021-08-06"
    headers = f"x-ms-date:{date}\nx-ms-version:{version}"
    resource = f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    text = "PUT\n" + "\n" * 11 + f"{headers}\n{resource}"
    digest = hmac.new(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256).digest()
    httpx.put(
        f"{url}/{ACCOUNT}/{name}?restype=container",
        headers={
            "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}",
            "x-ms-date": date,
            "x-ms-version": version,
        },
    ).raise_for_status()


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    port, folder = free_port(), tmp_path_factory.mktemp("azure")
    url = f"http://127.0.0.1:{port}"
    command = [tool("azurite", "node_modules", ".bin", "azurite-blob"), "--blobHost", "127.0.0.1"]
    command += ["--blobPort", str(port), "--location", str(folder), "--skipApiVersionCheck", "--loose"]
    endpoint = f"{url}/{ACCOUNT}"
    with running(command, url, folder):
        _create_container(url, "models")
        store = AzureStore(
            "models",
            account_name=ACCOUNT,
            account_key=ACCOUNT_KEY,
            endpoint=endpoint,
            client_options={"allow_http": True},
        )
        for name, content in FILES.items():
            obstore.put(store, name, content)
        connection = (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
            f"BlobEndpoint={endpoint};"
        )
        yield {
            "type": "azure",
            "account_name": ACCOUNT,
            "container": "models",
            "connection_string": connection,
        }


async def test_azure_is_pulled(puller: Puller, azure: dict[str, str]) -> None:
    assert tree((await pull(puller, azure)).path) == TREE


async def test_azure_failures_are_named(puller: Puller, azure: dict[str, str]) -> None:
    with pytest.raises(ObjectNotFoundError, match="no object at azure://devstoreaccount1/models/absent"):
        await pull(puller, azure, "absent")
    with pytest.raises(ObjectNotFoundError, match="ContainerNotFound"):
        await pull(puller, azure, container="nosuch")
    wrong = azure["connection_string"].replace(ACCOUNT_KEY, base64.b64encode(b"x" * 64).decode())
    with pytest.raises(StorageDeniedError, match="AuthorizationFailure"):
        await pull(puller, azure | {"connection_string": wrong})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"connection_string": "AccountName=devstoreaccount1"}, "neither AccountKey nor Shared"),
        ({"account_name": "evil.example/x", "connection_string": ""}, "none that Azure gives"),
        ({"client_id": "x", "connection_string": ""}, "lack client_secret, tenant_id"),
    ],
)
async def test_azure_settings_that_cannot_be_used_are_named(
    puller: Puller, azure: dict[str, str], entry: dict[str, str], message: str
) -> None:
    with pytest.raises(StorageConfigError, match=message):
        await pull(puller, azure | entry)


# ---------------------------------------------------------------- MinIO


@pytest.fixture(scope="module")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Behind TLS, with a certificate of an authority that nobody else knows."""
    folder, port, authority = tmp_path_factory.mktemp("minio"), free_port(), trustme.CA()
    (folder / "certs").mkdir()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "certs" / "private.key")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(folder / "certs" / "public.crt", append=True)
    url = f"https://127.0.0.1:{port}"
    command = [tool("go", "minio"), "server", "--quiet", "--address", f"127.0.0.1:{port}"]
    command += ["--certs-dir", "certs", "data"]
    (folder / "data" / "models").mkdir(parents=True)
    keys = {"MINIO_ROOT_USER": "minio", "MINIO_ROOT_PASSWORD": "minio-secret"}
    with running(command, url, folder, **keys):
        pem = authority.cert_pem.bytes().decode()
        store = S3Store(
            "models",
            endpoint=url,
            region="us-east-1",
            access_key_id="minio",
            secret_access_key="minio-secret",
            virtual_hosted_style_request=False,
            client_options={"root_certificate": pem},
        )
        for name, content in FILES.items():
            obstore.put(store, name, content)
        obstore.put(store, "big", b"x" * 70_000_000)
        yield {
            "type": "s3",
            "bucket": "models",
            "endpoint_url": url,
            "access_key_id": "minio",
            "secret_access_key": "minio-secret",
            "certificate": pem,
        }


async def test_minio_is_pulled_through_a_private_authority(puller: Puller, minio: dict[str, str]) -> None:
    assert tree((await pull(puller, minio)).path) == TREE
    assert (await pull(puller, minio, "big")).path.read_bytes() == b"x" * 70_000_000


async def test_minio_failures_are_named(puller: Puller, minio: dict[str, str]) -> None:
    with pytest.raises(ObjectNotFoundError, match="no object at s3://models/absent"):
        await pull(puller, minio, "absent")
    with pytest.raises(ObjectNotFoundError, match="NoSuchBucket"):
        await pull(puller, minio, bucket="no-such")
    with pytest.raises(StorageDeniedError, match="SignatureDoesNotMatch"):
        await pull(puller, minio | {"secret_access_key": "wrong"})

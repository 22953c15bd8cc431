"""An S3 server that does what real ones do rarely: odd keys, replaced objects, wrong checksums."""

import asyncio
import hashlib
import json
import ssl
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
import trustme
from aiohttp import web

from adapters.errors import (
    CorruptObjectError,
    DiskFullError,
    StorageConfigError,
    StorageDeniedError,
    StorageError,
    StorageKeyError,
)
from adapters.files import write_whole
from adapters.puller import ModelKey, Pulled, Puller
from adapters.puller.settings import PullerSettings
from adapters.puller.storage_config import StorageConfig
from adapters.puller.targets import Target

pytestmark = pytest.mark.e2e


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@dataclass
class Bucket:
    """Objects with their ETags; listed in pages, read by ranges, on condition."""

    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    page: int = 1000
    requests: list[web.Request] = field(default_factory=list)
    running: int = 0
    most: int = 0
    delay_s: float = 0
    flip: bool = False

    def tag(self, key: str) -> str:
        return f'"{self.tags.get(key, md5(self.objects[key]))}"'

    def reads(self) -> list[web.Request]:
        return [request for request in self.requests if "list-type" not in request.query]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.delay_s)
            return self._list(request) if "list-type" in request.query else self._read(request)
        finally:
            self.running -= 1

    def _list(self, request: web.Request) -> web.Response:
        keys = sorted(key for key in self.objects if key.startswith(request.query.get("prefix", "")))
        keys = [key for key in keys if key > request.query.get("continuation-token", "")]
        page, more = keys[: self.page], len(keys) > self.page
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>{escape(self.tag(key))}</ETag><Size>{len(self.objects[key])}</Size></Contents>"
            for key in page
        )
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        text = (
            '<?xml version="1.0"?><ListBucketResult><Name>b</Name>'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{contents}</ListBucketResult>"
        )
        return web.Response(text=text, content_type="application/xml")

    def _read(self, request: web.Request) -> web.Response:
        key = request.path.removeprefix("/b/")
        if key not in self.objects:
            return web.Response(status=404, text="<Error><Code>NoSuchKey</Code><Message>no</Message></Error>")
        if request.headers.get("If-Match", self.tag(key)) != self.tag(key):
            return web.Response(status=412)
        content = self.objects[key]
        headers = {"ETag": self.tag(key), "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        if self.flip:
            content = bytes([len(self.requests) % 256]) + content[1:]
        if asked := request.headers.get("Range"):
            start, end = (int(text) for text in asked.removeprefix("bytes=").split("-"))
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            return web.Response(status=206, body=content[start : end + 1], headers=headers)
        return web.Response(body=content, headers=headers)


@pytest.fixture
async def bucket() -> AsyncIterator[Bucket]:
    served = Bucket()
    application = web.Application()
    application.router.add_get("/{path:.*}", served.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


@pytest.fixture
def settings(tmp_path: Path) -> PullerSettings:
    (tmp_path / "models").mkdir()
    (tmp_path / "secret").mkdir()
    return PullerSettings(
        root=tmp_path / "models", secret=tmp_path / "secret", cache_bytes=1 << 30, transfers=5
    )


@pytest.fixture
def puller(settings: PullerSettings) -> Puller:
    return Puller(settings, key_patience_s=0)


async def pull(puller: Puller, bucket: Bucket, path: str = "m", model: str = "m", **entry: Any) -> Pulled:
    # Whole or not at all, as the kubelet does: pulls side by side read it.
    content = json.dumps({"type": "s3", "endpoint_url": bucket.url, "bucket": "b"} | entry)
    write_whole(puller._secret / "s3", content.encode(), mode=0o600)
    return await puller.pull(model, path, ModelKey(storage_key="s3"))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left(puller: Puller) -> list[str]:
    return [name for name in tree(puller._root) if not name.startswith("_content/")]


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("key", ["m/a//b", "m/../../up", "m/./a", "m//a"])
async def test_a_key_that_cannot_be_a_file_is_named(puller: Puller, bucket: Bucket, key: str) -> None:
    bucket.objects = {"m/ok": b"1", key: b"2"}
    with pytest.raises(StorageConfigError, match="cannot be a file") as raised:
        await pull(puller, bucket)
    assert key in str(raised.value)
    assert left(puller) == []


async def test_objects_that_want_one_place_are_named(puller: Puller, bucket: Bucket) -> None:
    bucket.objects = {"m/a": b"file", "m/a/b": b"below it"}
    with pytest.raises(StorageConfigError, match='"m/a" and "m/a/b" want the same place'):
        await pull(puller, bucket)
    assert left(puller) == []


async def test_every_page_of_a_listing_counts_and_siblings_fill_none(puller: Puller, bucket: Bucket) -> None:
    """The original stops after the first page, which objects of sibling prefixes can fill."""
    bucket.page = 10
    bucket.objects = {f"m-sibling/{number}": b"x" for number in range(50)}
    bucket.objects |= {f"m/{number}": str(number).encode() for number in range(35)}
    pulled = await pull(puller, bucket)
    assert tree(pulled.path) == {str(number): str(number).encode() for number in range(35)}


# ---------------------------------------------------------------- transfers


async def test_requests_stay_within_the_pods_bound(puller: Puller, bucket: Bucket) -> None:
    bucket.objects = {f"{model}/{number}": b"x" for model in "mn" for number in range(40)}
    bucket.delay_s = 0.02
    await asyncio.gather(pull(puller, bucket, "m", "m"), pull(puller, bucket, "n", "n"))
    assert bucket.most == 5


async def test_a_large_object_comes_in_parts_of_one_version(
    puller: Puller, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.puller.download._PART_BYTES", 1_000_000)
    content = bytes(range(256)) * 20_000
    bucket.objects = {"m": content}
    assert (await pull(puller, bucket)).path.read_bytes() == content
    parts = [request for request in bucket.reads() if "Range" in request.headers]
    assert len(parts) == 6
    assert {request.headers["If-Match"] for request in parts} == {bucket.tag("m")}


async def test_an_object_that_is_replaced_meanwhile_is_not_mixed(puller: Puller, bucket: Bucket) -> None:
    bucket.objects = {"m/a": b"1"}
    storage = puller._storage(StorageConfig({"type": "s3", "endpoint_url": bucket.url, "bucket": "b"}))
    found = await storage.find([Target("m", "m")])
    bucket.objects["m/a"] = b"2"
    with pytest.raises(StorageError, match="m/a was replaced during the pull"):
        await storage.fetch(found, puller._root)


async def test_a_failure_is_not_remembered(puller: Puller, bucket: Bucket) -> None:
    """The original's GCS client answers with its first error for an hour."""
    for _ in range(2):
        with pytest.raises(StorageError):
            await pull(puller, bucket)
    bucket.objects = {"m/a": b"a"}
    assert tree((await pull(puller, bucket)).path) == {"a": b"a"}


# ---------------------------------------------------------------- checksums


async def test_content_that_is_not_what_its_etag_says_is_corrupt(puller: Puller, bucket: Bucket) -> None:
    bucket.objects, bucket.flip = {"m/a": b"content", "m/b": b"x" * 600_000}, True
    with pytest.raises(CorruptObjectError, match="is corrupt: its md5 is"):
        await pull(puller, bucket)
    assert left(puller) == []


@pytest.mark.parametrize("tag", ["0123456789abcdef0123456789abcdef-7", "0x8DABCDEF", "0" * 32])
async def test_an_etag_that_is_no_checksum_is_none(puller: Puller, bucket: Bucket, tag: str) -> None:
    """The last looks like one: a store that encrypts with a customer's key gives such."""
    bucket.objects = {"m/a": b"a", "m/b": b"b"}
    bucket.tags = {"m/a": tag, "m/b": tag}
    assert tree((await pull(puller, bucket)).path) == bucket_content(bucket)


def bucket_content(bucket: Bucket) -> dict[str, bytes]:
    return {key.removeprefix("m/"): content for key, content in bucket.objects.items()}


# ---------------------------------------------------------------- kept contents


async def test_an_unchanged_model_is_not_read_again(
    puller: Puller, bucket: Bucket, settings: PullerSettings
) -> None:
    bucket.objects = {"m/a": b"a", "m/b/c": b"c"}
    await pull(puller, bucket)
    puller.remove("m")
    await pull(puller, bucket)
    await pull(puller, bucket, model="twin")
    pulled = await pull(Puller(settings), bucket)
    assert len(bucket.reads()) == 2
    assert tree(pulled.path) == {"a": b"a", "b/c": b"c"}


async def test_a_changed_model_is_read_again(puller: Puller, bucket: Bucket) -> None:
    bucket.objects = {"m/a": b"a", "m/b": b"b"}
    await pull(puller, bucket)
    bucket.objects["m/a"] = b"new"
    assert tree((await pull(puller, bucket)).path) == {"a": b"new", "b": b"b"}
    bucket.objects = {"m/a": b"new"}
    assert tree((await pull(puller, bucket)).path) == {"a": b"new"}


async def test_content_is_not_for_others_credentials(puller: Puller, bucket: Bucket) -> None:
    bucket.objects = {"m/a": b"a"}
    await pull(puller, bucket)
    await pull(puller, bucket, access_key_id="other", secret_access_key="secret")
    assert len(bucket.reads()) == 2


async def test_credentials_never_collide_by_concatenation(puller: Puller) -> None:
    """The original hashes the values without separators: ("ab", "c") is ("a", "bc")."""
    one, other = (
        puller._storage(
            StorageConfig({"type": "s3", "bucket": "b", "access_key_id": left, "secret_access_key": right})
        )
        for left, right in (("ab", "c"), ("a", "bc"))
    )
    assert one is not other


# ---------------------------------------------------------------- the pod


async def test_a_model_that_does_not_fit_is_refused_before_it_is_read(
    puller: Puller, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.puller.content._free", lambda _: 5)
    bucket.objects = {"m/a": b"123456"}
    with pytest.raises(DiskFullError, match="has 6 bytes, and 5 are free"):
        await pull(puller, bucket)
    assert bucket.reads() == []
    assert left(puller) == []


async def test_a_storage_key_may_come_a_little_later(settings: PullerSettings, bucket: Bucket) -> None:
    bucket.objects = {"m/a": b"a"}
    puller = Puller(settings, key_patience_s=30)
    task = asyncio.create_task(puller.pull("m", "m", ModelKey(storage_key="late")))
    await asyncio.sleep(0)
    entry = {"type": "s3", "endpoint_url": bucket.url, "bucket": "b"}
    draft = settings.secret / ".draft"
    draft.write_text(json.dumps(entry))
    draft.rename(settings.secret / "late")
    assert tree((await task).path) == {"a": b"a"}
    with pytest.raises(StorageKeyError, match='"never" is not in the storage Secret'):
        await Puller(settings, key_patience_s=0).pull("m", "m", ModelKey(storage_key="never"))


async def test_a_changed_secret_counts_at_the_next_load(puller: Puller, bucket: Bucket) -> None:
    bucket.objects = {"m/a": b"a"}
    with pytest.raises(StorageError):
        await pull(puller, bucket, endpoint_url=f"{bucket.url}/elsewhere")
    assert tree((await pull(puller, bucket)).path) == {"a": b"a"}


# ---------------------------------------------------------------- whose identity


async def test_a_pods_own_identity_signs_requests_of_an_entry(
    puller: Puller, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "POD")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    bucket.objects = {"m/a": b"a"}
    await pull(puller, bucket)
    assert all("Credential=POD/" in request.headers["Authorization"] for request in bucket.requests)
    bucket.requests.clear()
    await pull(puller, bucket, credentials="anonymous")
    params = {"type": "s3", "endpoint_url": bucket.url, "bucket": "b"}
    await puller.pull("n", "m", ModelKey(storage_params=params))
    assert all("Authorization" not in request.headers for request in bucket.requests)


async def test_a_web_identity_is_exchanged_for_credentials(
    puller: Puller, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, str]] = []

    async def assume(request: web.Request) -> web.Response:
        asked.append(
            {**request.query, **{name: str(value) for name, value in (await request.post()).items()}}
        )
        return web.Response(
            text="<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
            "<AccessKeyId>ROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>tok</SessionToken>"
            "<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>"
            "</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
            content_type="text/xml",
        )

    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    application = web.Application()
    application.router.add_route("*", "/", assume)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    (tmp_path / "token").write_text("jwt")
    for name, value in {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/models",
        "AWS_ENDPOINT_URL_STS": f"https://127.0.0.1:{runner.addresses[0][1]}/",
    }.items():
        monkeypatch.setenv(name, value)
    bucket.objects = {"m/a": b"a"}
    try:
        await pull(puller, bucket, certificate=authority.cert_pem.bytes().decode())
    finally:
        await runner.cleanup()
    assert asked[0]["WebIdentityToken"] == "jwt"
    assert all("Credential=ROLE/" in request.headers["Authorization"] for request in bucket.requests)
    assert all(request.headers["X-Amz-Security-Token"] == "tok" for request in bucket.requests)


async def test_a_virtual_style_request_has_the_bucket_in_its_host(
    puller: Puller, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", bucket.url)  # stands in for DNS, which has no such name
    with pytest.raises((StorageDeniedError, StorageError)):
        await pull(puller, bucket, endpoint_url="http://objects.invalid", addressing="virtual")
    assert {request.headers["Host"] for request in bucket.requests} == {"b.objects.invalid"}


async def test_a_write_that_is_under_way_keeps_its_file_when_the_pull_is_cancelled(
    puller: Puller, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.objects["m"] = b"x" * (1 << 20)
    began, gate, names = threading.Event(), threading.Event(), []

    def write(fd: int, *_: object) -> None:
        began.set()
        gate.wait(10)
        names.append(Path(f"/proc/self/fd/{fd}").readlink().name)

    monkeypatch.setattr("adapters.puller.download._write", write)
    task = asyncio.create_task(pull(puller, bucket))
    assert await asyncio.to_thread(began.wait, 10)
    task.cancel()
    await asyncio.sleep(0.1)
    assert not task.done()
    task.cancel()  # no more than once counts
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names == ["m"]

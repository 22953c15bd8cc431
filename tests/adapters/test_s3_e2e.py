"""Pulling from a real S3 server: files, folders, many objects, and every way it can go wrong."""

import asyncio
import errno
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pytest

from adapters.errors import (
    AdapterError,
    DiskFullError,
    ObjectNotFoundError,
    StorageConfigError,
    StorageDeniedError,
    StorageUnavailableError,
)
from adapters.puller import ModelKey, Pulled, Puller, clients
from adapters.puller.settings import PullerSettings

pytestmark = pytest.mark.e2e

MANY = 2345


@pytest.fixture(scope="session")
def bucket(s3: Any) -> Any:
    """The server, with the objects that the tests look for."""
    store = s3.store()
    objects = {
        "sklearn/model.joblib": b"j" * 3_000_000,
        "sklearn/model.joblib.bak": b"not this",
        "tree/a.txt": b"a",
        "tree/sub/b c+d%é.txt": b"bb",
        "tree/sub/empty": b"",
        "tree/.hidden": b"h",
        "tree-2/c": b"no",
        "schemas/s.json": b"{}",
    }
    for key, content in objects.items():
        obstore.put(store, key, content)
    obstore.put(store, "tree/marker-of-sub/", b"")
    obstore.put(store, "tree/marker-of-sub/x", b"x")
    obstore.put(s3.store("second"), "only/here", b"2")

    async def put_many() -> None:
        limit = asyncio.Semaphore(32)

        async def put(number: int) -> None:
            async with limit:
                await obstore.put_async(store, f"many/{number % 7}/{number}", str(number).encode())

        await asyncio.gather(*(put(number) for number in range(MANY)))

    asyncio.run(put_many())
    return s3


@pytest.fixture
def secret(tmp_path: Path, bucket: Any) -> Path:
    folder = tmp_path / "storage-config"
    folder.mkdir()
    entries = {
        "good": bucket.entry(),
        "wrong-secret": bucket.entry(secret_access_key="x" * 40),
        "wrong-id": bucket.entry(access_key_id="NOBODY"),
        "no-bucket": bucket.entry(bucket="absent"),
        "half": bucket.entry(secret_access_key=""),
        "anonymous": bucket.entry(access_key_id="", secret_access_key=""),
        "no-scheme": bucket.entry(endpoint_url="minio:9000"),
        "bad-certificate": bucket.entry(certificate="no PEM"),
    }
    for name, entry in entries.items():
        (folder / name).write_text(json.dumps(entry))
    return folder


@pytest.fixture
def puller(tmp_path: Path, secret: Path) -> Puller:
    (tmp_path / "models").mkdir()
    settings = PullerSettings(root=tmp_path / "models", secret=secret)
    return Puller(settings, key_patience_s=0)


async def pull(puller: Puller, path: str, *, model_id: str = "m", **key: Any) -> Pulled:
    return await puller.pull(model_id, path, ModelKey.parse(json.dumps({"storage_key": "good"} | key)))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_a_file_is_pulled_alone(puller: Puller, tmp_path: Path) -> None:
    pulled = await pull(puller, "sklearn/model.joblib")
    assert pulled.path == tmp_path / "models" / "m" / "model.joblib"
    assert tree(pulled.path.parent) == {"model.joblib": b"j" * 3_000_000}
    assert pulled.key.to_json() == '{"disk_size_bytes":3000000}'


@pytest.mark.parametrize("path", ["tree", "tree/", "/tree"])
async def test_a_folder_is_pulled_whole_and_without_its_siblings(puller: Puller, path: str) -> None:
    pulled = await pull(puller, path)
    assert tree(pulled.path) == {
        "a.txt": b"a",
        "sub/b c+d%é.txt": b"bb",
        "sub/empty": b"",
        ".hidden": b"h",
        "marker-of-sub/x": b"x",
    }
    assert pulled.key.disk_size_bytes == 5


async def test_more_objects_than_one_page_lists_are_all_pulled(puller: Puller) -> None:
    pulled = await pull(puller, "many")
    assert sorted(int(content) for content in tree(pulled.path).values()) == list(range(MANY))


async def test_a_schema_comes_along(puller: Puller, tmp_path: Path) -> None:
    pulled = await pull(puller, "sklearn/model.joblib", schema_path="schemas/s.json")
    assert pulled.key.schema_path == str(tmp_path / "models" / "m" / "s.json")
    assert tree(tmp_path / "models" / "m")["s.json"] == b"{}"
    assert pulled.key.disk_size_bytes == 3_000_000


async def test_a_schema_never_takes_the_models_name(puller: Puller) -> None:
    pulled = await pull(puller, "schemas/s.json", schema_path="schemas/s.json")
    assert Path(pulled.key.schema_path).name == "_schema.json"


async def test_another_bucket_may_be_asked_for(puller: Puller) -> None:
    pulled = await pull(puller, "only/here", storage_params={"bucket": "second"})
    assert pulled.path.read_bytes() == b"2"


async def test_a_pull_replaces_what_an_earlier_one_left(puller: Puller, tmp_path: Path) -> None:
    await pull(puller, "tree")
    await pull(puller, "only/here", storage_params={"bucket": "second"})
    assert tree(tmp_path / "models") == {"m/here": b"2"}


async def test_sizes_are_known_before_the_pull(puller: Puller, tmp_path: Path) -> None:
    key = ModelKey.parse('{"storage_key": "good"}')
    assert await puller.size("sklearn/model.joblib", key) == 3_000_000
    assert await puller.size("tree", key) == 5
    assert tree(tmp_path / "models") == {}


FAILURES: list[tuple[str, dict[str, Any], type[AdapterError], str]] = [
    (
        "sklearn/absent",
        {},
        ObjectNotFoundError,
        r'no object at s3://models/sklearn/absent \(storage key "good"\)',
    ),
    ("sklearn/model", {}, ObjectNotFoundError, "no object at"),
    ("tree", {"schema_path": "schemas/no.json"}, ObjectNotFoundError, r"s3://models/schemas/no\.json"),
    ("tree", {"storage_key": "no-bucket"}, ObjectNotFoundError, "NoSuchBucket"),
    ("tree", {"storage_key": "wrong-secret"}, StorageDeniedError, '"wrong-secret".*SignatureDoesNotMatch'),
    ("tree", {"storage_key": "wrong-id"}, StorageDeniedError, '"wrong-id".*InvalidAccessKeyId'),
    ("tree", {"storage_key": "anonymous"}, StorageDeniedError, "AccessDenied"),
    ("tree", {"storage_key": "half"}, StorageConfigError, "lack secret_access_key"),
    ("tree", {"storage_key": "no-scheme"}, StorageConfigError, "no http or https URL"),
    ("tree", {"storage_key": "bad-certificate"}, StorageConfigError, "bad-certificate"),
    ("", {}, StorageConfigError, "Predictor Storage field missing: the model has no path"),
    (
        "tree",
        {"storage_key": None, "storage_params": {"type": "ftp"}},
        StorageConfigError,
        "known types: azure, gcs, http, pvc, s3",
    ),
    ("tree", {"storage_key": None, "storage_params": {"type": "s3"}}, StorageConfigError, "lack bucket"),
]


@pytest.mark.parametrize(("path", "key", "kind", "message"), FAILURES)
async def test_a_failure_is_named_by_its_kind_and_leaves_nothing(
    puller: Puller, tmp_path: Path, path: str, key: dict[str, Any], kind: type[AdapterError], message: str
) -> None:
    with pytest.raises(kind, match=message) as raised:
        await pull(puller, path, **key)
    assert "\n" not in str(raised.value)
    assert list((tmp_path / "models").rglob("*")) in ([], [tmp_path / "models" / "_pulling"])


async def test_a_server_that_is_down_is_unavailable(
    puller: Puller, secret: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(clients.RETRY, "max_retries", 1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (secret / "down").write_text(json.dumps(bucket.entry(endpoint_url=f"http://127.0.0.1:{port}")))
    with pytest.raises(StorageUnavailableError, match=r'"down".*Connection refused'):
        await pull(puller, "tree", storage_key="down")


class Cutter:
    """A TCP relay in front of the S3 server that cuts the first `cuts` connections after some bytes."""

    def __init__(self, target: int, cuts: int, after: int) -> None:
        self.target, self.cuts, self.after = target, cuts, after
        self.server: asyncio.Server | None = None

    async def start(self) -> int:
        self.server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        return int(self.server.sockets[0].getsockname()[1])

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self.target)
        budget = [0]

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, down: bool) -> None:
            while data := await source.read(65536):
                if down and self.cuts:
                    budget[0] += len(data)
                    if budget[0] > self.after:
                        self.cuts -= 1
                        break
                sink.write(data)
                await sink.drain()

        ways = [
            asyncio.create_task(copy(reader, upstream_writer, down=False)),
            asyncio.create_task(copy(upstream_reader, writer, down=True)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        writer.transport.abort()
        upstream_writer.close()


@pytest.fixture
async def behind_cutter(bucket: Any, secret: Path) -> Any:
    servers: list[asyncio.Server] = []

    async def start(cuts: int, after: int) -> None:
        cutter = Cutter(int(bucket.endpoint.rpartition(":")[2]), cuts, after)
        port = await cutter.start()
        assert cutter.server
        servers.append(cutter.server)
        (secret / "cut").write_text(json.dumps(bucket.entry(endpoint_url=f"http://127.0.0.1:{port}")))

    yield start
    for server in servers:
        server.close()


async def test_a_connection_that_breaks_during_a_download_is_made_up_for(
    puller: Puller, behind_cutter: Callable[[int, int], Any]
) -> None:
    await behind_cutter(2, 1_000_000)
    pulled = await pull(puller, "sklearn/model.joblib", storage_key="cut")
    assert pulled.path.read_bytes() == b"j" * 3_000_000


async def test_a_download_that_never_gets_through_is_unavailable(
    puller: Puller,
    tmp_path: Path,
    behind_cutter: Callable[[int, int], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(clients.RETRY, "max_retries", 1)
    await behind_cutter(1000, 20_000)
    with pytest.raises(StorageUnavailableError, match=r"sklearn/model\.joblib"):
        await pull(puller, "sklearn/model.joblib", storage_key="cut")
    assert tree(tmp_path / "models") == {}


async def test_a_full_disk_is_told_as_such(
    puller: Puller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(DiskFullError, match="model volume is full"):
        await pull(puller, "sklearn/model.joblib")
    monkeypatch.undo()
    assert tree(tmp_path / "models") == {}


async def test_a_cancelled_pull_stops_and_leaves_nothing(puller: Puller, tmp_path: Path) -> None:
    task = asyncio.create_task(pull(puller, "many"))
    async with asyncio.timeout(30):
        while not list((tmp_path / "models" / "_pulling").glob("m/many/*/*")):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tree(tmp_path / "models") == {}
    assert not (tmp_path / "models" / "m").exists()


async def test_removing_and_purging_leave_other_folders_alone(puller: Puller, tmp_path: Path) -> None:
    root = tmp_path / "models"
    for model_id in ("a", "b", "c"):
        await pull(puller, "sklearn/model.joblib", model_id=model_id)
    (root / "_mlserver_models").mkdir()
    puller.remove("a")
    puller.remove("never-there")
    assert sorted(path.name for path in root.iterdir()) == ["_mlserver_models", "_pulling", "b", "c"]
    puller.purge({"c"})
    assert sorted(path.name for path in root.iterdir()) == ["_mlserver_models", "_pulling", "c"]

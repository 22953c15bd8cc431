"""The puller against plain clients of the same S3 server, in turns, and the adapter's memory while it pulls.

Two cores and one disk are shared by server and client, so the figures are ratios measured side by side.
"""

import asyncio
import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import obstore
from obstore.store import S3Store

from bench import figures, load_overhead
from local.home import Home
from tests.adapters.servers import s3_server
from tests.store.etcd_server import free_port

COMMAND = "make bench-adapters"
ROUNDS = 5
BIG_BYTES = 512 << 20
SMALL_OBJECTS, SMALL_BYTES = 10_000, 2048
KEY, SECRET = "bench", "bench-secret-key"
BUCKET = "models"


def secret_entry(endpoint: str) -> dict[str, str]:
    """The entry of the storage Secret for the server."""
    return {
        "type": "s3",
        "endpoint_url": endpoint,
        "region": "us-east-1",
        "access_key_id": KEY,
        "secret_access_key": SECRET,
        "bucket": BUCKET,
    }


def client(endpoint: str) -> S3Store:
    """The plain client."""
    return S3Store(
        BUCKET,
        endpoint=endpoint,
        region="us-east-1",
        access_key_id=KEY,
        secret_access_key=SECRET,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "timeout": "10m"},
    )


async def fill(store: S3Store) -> None:
    """Uploads one large object and many small ones."""
    block = secrets.token_bytes(1 << 20)
    await obstore.put_async(store, "big/model.bin", (block for _ in range(BIG_BYTES >> 20)))
    limit = asyncio.Semaphore(32)

    async def put(number: int) -> None:
        async with limit:
            await obstore.put_async(store, f"small/{number % 100}/{number}", block[:SMALL_BYTES])

    await asyncio.gather(*(put(number) for number in range(SMALL_OBJECTS)))


def plain_big(endpoint: str, folder: Path) -> None:
    """Reads the large object through the plain client, as its documentation shows."""

    async def read() -> None:
        result = await obstore.get_async(client(endpoint), "big/model.bin")
        with (folder / "model.bin").open("wb") as file:
            async for chunk in result.stream():
                file.write(chunk)

    asyncio.run(read())


def plain_small(endpoint: str, folder: Path) -> None:
    """Reads the small objects through the plain client, 16 at once."""

    async def read() -> None:
        store, limit = client(endpoint), asyncio.Semaphore(16)

        async def one(key: str) -> None:
            async with limit:
                content = await (await obstore.get_async(store, key)).bytes_async()
                path = folder / key
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

        keys = [item["path"] async for page in obstore.list(store, "small") for item in page]
        await asyncio.gather(*(one(key) for key in keys))

    asyncio.run(read())


def mc_small(endpoint: str, folder: Path, mc: str) -> None:
    """Copies the small objects with MinIO's client."""
    host = endpoint.replace("://", f"://{KEY}:{SECRET}@")
    subprocess.run(
        [mc, "cp", "--recursive", "--quiet", f"bench/{BUCKET}/small", str(folder)],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"MC_HOST_bench": host, "MC_CONFIG_DIR": str(folder / ".mc")},
    )


def pull(endpoint: str, folder: Path, path: str) -> tuple[float, float]:
    """Pulls through the puller in a process of its own: seconds, and the process's peak memory in MiB."""
    (folder / "secret").mkdir()
    (folder / "secret" / "bench").write_text(json.dumps(secret_entry(endpoint)))
    (folder / "models").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "bench.adapters", "pull", str(folder), path],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    seconds, memory = json.loads(done.stdout.splitlines()[-1])
    return seconds, memory


def pull_here(folder: Path, path: str) -> None:
    """The other side of `pull`; with all that an adapter has in memory."""
    import adapters.mlserver  # noqa: PLC0415, F401
    from adapters.allocator import bound_arenas  # noqa: PLC0415
    from adapters.puller import ModelKey, Puller  # noqa: PLC0415
    from adapters.puller.settings import PullerSettings  # noqa: PLC0415
    from modelmesh import logs  # noqa: PLC0415

    bound_arenas()
    logs.configure("bench")
    settings = PullerSettings(root=folder / "models", secret=folder / "secret", cache_bytes=1 << 30)
    puller = Puller(settings)
    start = time.perf_counter()
    asyncio.run(puller.pull("m", path, ModelKey(storage_key="bench")))
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps([seconds, peak / 1024]))


def timed(work: str, *arguments: object) -> float:
    """Seconds of a call of one of this module's functions, in a process of its own as the puller's is."""
    code = (
        "import sys, time; from pathlib import Path; import bench.adapters as b\n"
        f"start = time.perf_counter(); b.{work}(*[{', '.join(map(repr, arguments))}])\n"
        "print(time.perf_counter() - start)"
    )
    code = code.replace("PosixPath(", "Path(")
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.splitlines()[-1])


@contextmanager
def empty_folder(below: Path) -> Iterator[Path]:
    """A folder that is removed, and written out, before the next measurement begins."""
    folder = Path(tempfile.mkdtemp(dir=below))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        os.sync()


def find_mc() -> str | None:
    """MinIO's client: from PATH, or built from its Go module before (`make mc`)."""
    built = Home.from_environment().tools / "go" / "mc"
    return shutil.which("mc") or (str(built) if os.access(built, os.X_OK) else None)


def ratios(endpoint: str, below: Path) -> list[tuple[str, float, str]]:
    """Measures the puller and the plain clients in turns."""
    mc = find_mc()
    big, small, peaks = [], [], []
    for _ in range(ROUNDS):
        with empty_folder(below) as folder:
            plain = timed("plain_big", endpoint, folder)
        with empty_folder(below) as folder:
            ours, peak = pull(endpoint, folder, "big/model.bin")
        big.append(plain / ours)
        peaks.append(peak)
        print(f"big: plain {plain:.2f} s, puller {ours:.2f} s, peak {peak:.0f} MiB")
    for _ in range(3):
        with empty_folder(below) as folder:
            plain = timed("mc_small", endpoint, folder, mc) if mc else timed("plain_small", endpoint, folder)
        with empty_folder(below) as folder:
            ours, peak = pull(endpoint, folder, "small")
        small.append(plain / ours)
        peaks.append(peak)
        print(f"small: {'mc' if mc else 'obstore'} {plain:.2f} s, puller {ours:.2f} s, peak {peak:.0f} MiB")
    name = "small_objects_ratio" if mc else "small_objects_obstore_ratio"
    return [
        ("pull_ratio", statistics.median(big), "ratio"),
        (name, statistics.median(small), "ratio"),
        ("pull_peak_mib", max(peaks), "MiB"),
    ]


def main() -> None:
    """Measures everything and writes bench/results/adapters.json."""
    if sys.argv[1:2] == ["pull"]:
        pull_here(Path(sys.argv[2]), sys.argv[3])
        return
    with tempfile.TemporaryDirectory() as name:
        below = Path(name)
        with s3_server(below, KEY, SECRET) as (endpoint, _):
            asyncio.run(fill(client(endpoint)))
            measured = ratios(endpoint, below)
            paths = [f"small/{number % 100}/{number}" for number in range(500)]
            loading = load_overhead.measure(below / "load", secret_entry(endpoint), paths, free_port())
            measured += asyncio.run(loading)
    figures.save("adapters", measured, COMMAND)


if __name__ == "__main__":
    main()

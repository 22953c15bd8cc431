"""No byte of a hit passes through Python: while the interpreter is stopped, hits go on."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.dataplane.harness import ROOT

if TYPE_CHECKING:
    from tests.dataplane.harness import Instance

CLIENT = Path(__file__).with_name("lock_client.py")
HELD_SECONDS = 3.0
HITS = 1000
LIMIT_SECONDS = 0.2


async def test_hits_are_answered_while_the_interpreter_lock_is_held(instance: Instance) -> None:
    addresses = instance.addresses
    ended, ends = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, str(CLIENT), addresses["grpc"], addresses["rest"]],
        *[str(HELD_SECONDS), str(HITS), str(ends)],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        pass_fds=[ends],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    os.close(ends)
    assert process.stdin
    assert process.stdout
    assert await process.stdout.readline() == b"ready\n"
    process.stdin.write(b"go\n")
    await process.stdin.drain()
    await asyncio.sleep(0)
    # PyDLL, unlike CDLL, keeps the interpreter's lock during the call: until the client closes its end.
    held_from = time.monotonic()
    assert ctypes.PyDLL(None).read(ended, ctypes.create_string_buffer(1), 1) == 0
    assert time.monotonic() - held_from >= HELD_SECONDS
    os.close(ended)
    report = json.loads(await process.stdout.readline())
    await process.wait()
    assert report["grpc"]["count"] + report["rest"]["count"] >= HITS, report
    assert report["rest"]["count"] >= 50, report
    assert report["grpc"]["slowest"] < LIMIT_SECONDS, report
    assert report["rest"]["slowest"] < LIMIT_SECONDS, report

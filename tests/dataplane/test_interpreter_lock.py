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
LIMIT_SECONDS = 0.2


async def test_hits_are_answered_while_the_interpreter_lock_is_held(instance: Instance) -> None:
    addresses = instance.addresses
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, str(CLIENT), addresses["grpc"], addresses["rest"], str(HELD_SECONDS)],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdin
    assert process.stdout
    assert await process.stdout.readline() == b"ready\n"
    process.stdin.write(b"go\n")
    await process.stdin.drain()
    await asyncio.sleep(0)
    # PyDLL, unlike CDLL, keeps the interpreter's lock during the call.
    held_from = time.monotonic()
    ctypes.PyDLL(None).usleep(int(HELD_SECONDS * 1_000_000))
    assert time.monotonic() - held_from >= HELD_SECONDS
    report = json.loads(await process.stdout.readline())
    await process.wait()
    assert report["grpc"]["count"] + report["rest"]["count"] >= 300, report
    assert report["rest"]["count"] >= 50, report
    assert report["grpc"]["slowest"] < LIMIT_SECONDS, report
    assert report["rest"]["slowest"] < LIMIT_SECONDS, report
